"""The HTTP/2 client against real sockets."""
