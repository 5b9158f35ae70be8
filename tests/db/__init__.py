"""What the database itself holds."""
