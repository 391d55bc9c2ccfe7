"""Extract the motion of a driving clip, keep it in files, and drive a session with it."""
