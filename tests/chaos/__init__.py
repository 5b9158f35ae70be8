"""Everything at once, killed at random, judged from outside."""
