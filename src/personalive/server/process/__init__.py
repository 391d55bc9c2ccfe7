"""The pipeline in a separate process: it shares no interpreter lock with the server, and may die alone."""
