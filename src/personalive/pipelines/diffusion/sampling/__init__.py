"""The streaming algorithm: the engine, the window, the noise schedule, noise and fused references."""
