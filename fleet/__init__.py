"""The life of a worker among others."""
