"""One limiter per route, right before the call: rate, priorities, circuit breaker."""
