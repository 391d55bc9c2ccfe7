"""Benchmarks: how long a step takes, and where the time goes."""
