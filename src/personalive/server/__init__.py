"""`personalive serve`: REST and WebRTC around one pipeline.

It needs the `server` extra. Outside this package only the command imports it, and only when it runs.
"""
