"""Where the picture goes: a virtual camera, a window, a file, a WHIP server."""
