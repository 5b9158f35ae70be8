"""What the operators' commands are made of; `cli.py` puts them together."""
