"""The pipeline in a separate process: it has its own interpreter lock, and its crash does not end the server."""
