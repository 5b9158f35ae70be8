"""Gates and brake, over the whole service: real sockets, real PostgreSQL, real Temporal where it plays a part."""
