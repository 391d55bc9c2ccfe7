"""Live sessions, and the thread that steps them all."""
