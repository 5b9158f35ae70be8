"""Every setting, read once at the edges and passed down as values."""
