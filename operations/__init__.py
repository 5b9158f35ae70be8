"""What people and phones trigger: rules over several tables."""
