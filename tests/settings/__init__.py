"""Settings, the file of apps, credentials, logs."""
