"""Sets of weights on disk: their files, and how these are read, checked, converted and made at random."""
