"""Decide from the free memory what has to give, and fall back where it was too little."""
