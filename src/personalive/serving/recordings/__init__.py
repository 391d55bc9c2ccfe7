"""Sessions recorded to files."""
