"""How a step is run, not what it computes: recorded, compiled, laid out, in fewer bits, in less memory."""
