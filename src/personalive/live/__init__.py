"""A camera in, a virtual camera out: `personalive live`, on the server's own sessions."""
