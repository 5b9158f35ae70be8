"""What workflows do outside of themselves: database and providers."""
