"""`make test-upgrade`: from the last release to this code and back, while people fast and write."""
