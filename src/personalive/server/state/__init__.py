"""What the server has: the pipeline, references, weights, the machine."""
