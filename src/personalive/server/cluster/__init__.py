"""The server on many machines: one address, and behind it replicas that each hold a pipeline and its sessions."""
