"""One machine is not enough: Ray carries the same work over many."""
