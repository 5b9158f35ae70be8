"""Payloads, verdicts and the HTTP/2 client, over real sockets."""
