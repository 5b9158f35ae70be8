"""Benchmarks: the whole pipeline as processes of their own, on one machine."""
