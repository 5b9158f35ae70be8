"""PostgreSQL: models, and one function per question."""
