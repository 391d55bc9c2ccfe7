"""The server's state: the pipeline, references, downloads and hardware."""
