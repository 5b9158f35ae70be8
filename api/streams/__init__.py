"""The streams that are open in this process, and what feeds them."""
