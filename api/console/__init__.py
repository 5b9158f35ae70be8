"""The console: pages for operators and support, rendered on the server, one file per page."""
