"""Durable flows: what happens when, and what is asked of the world at each step."""
