"""Memory plans: the bytes that are needed, what is given up where they are missing, and the fallback."""
