"""`python -m bench.peers`: Celery with Redis, bare Temporal and Fastbell, side by side."""
