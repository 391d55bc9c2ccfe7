"""`personalive serve`: REST and WebRTC around one pipeline.

Needs the `server` extra; nothing outside this package imports it but the command itself, when it runs.
"""
