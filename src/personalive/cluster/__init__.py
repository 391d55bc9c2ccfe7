"""One machine is not enough: many jobs, and many live sessions, on the GPUs of several."""
