"""The operations of the networks, each in PyTorch and, where it is faster on a GPU, as a Triton kernel."""
