"""Weights on disk: which files make a set, how they are fetched, read, checked and written."""
