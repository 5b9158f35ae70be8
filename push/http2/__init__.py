"""The HTTP/2 client for both providers."""
