"""Weights on disk: which files make a set, how they are read, checked, converted and made at random."""
