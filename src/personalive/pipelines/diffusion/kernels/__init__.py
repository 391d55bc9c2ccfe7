"""Operations that networks are made of, each in PyTorch and, where a GPU gains by it, as one kernel of our own."""
