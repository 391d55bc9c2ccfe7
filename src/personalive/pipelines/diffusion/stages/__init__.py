"""The parts of a step and how they run: recorded, compiled, laid out in memory, in fewer bits, in less memory."""
