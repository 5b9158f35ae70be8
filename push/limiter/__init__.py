"""One limiter per route, at the call itself: rate, priorities, circuit breaker."""
