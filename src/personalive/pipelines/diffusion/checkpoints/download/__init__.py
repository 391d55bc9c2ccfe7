"""The released weights, from the hub or another folder into a set: planned, resumed, verified, each file whole."""
