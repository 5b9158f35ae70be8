"""The console: pages for operators and support, rendered here, one file per page."""
