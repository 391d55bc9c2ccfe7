"""A live session, and the thread that steps them all."""
