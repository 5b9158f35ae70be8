"""What a workflow asks of the world."""
