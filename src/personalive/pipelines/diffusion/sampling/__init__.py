"""The engine: window, noise schedule, noise and reference banks of a session, step by step."""
