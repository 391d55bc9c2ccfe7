"""PersonaLive's nodes for ComfyUI: this folder is a custom node."""

try:
    import personalive  # noqa: F401 - says early and clearly what is missing
except ImportError as error:
    import sys

    raise ImportError(
        f"The PersonaLive nodes need the package personalive in ComfyUI's Python: {error}. "
        f"Run: {sys.executable} -m pip install 'PATH_OF_THE_PERSONALIVE_REPOSITORY[diffusion]'"
    ) from error

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
