"""A plugin of Daydream Scope with PersonaLive's pipelines."""
