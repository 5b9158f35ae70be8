"""Several apps on one service, through the whole of it."""
