"""The PersonaLive diffusion pipeline: networks, released weights, streaming."""
