"""One send: the claim, the verdict, the record."""
