"""Support: what people see of pushes, and what they do to them."""
