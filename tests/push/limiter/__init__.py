"""The limiter of one route, its clock passed in."""
