"""What talks to Temporal from outside a workflow."""
