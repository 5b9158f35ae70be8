"""What people and phones set off: rules over several tables."""
