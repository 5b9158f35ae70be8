"""The one place where payloads are shaped and providers are called."""
