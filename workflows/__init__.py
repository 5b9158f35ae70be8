"""Durable flows: what happens when."""
