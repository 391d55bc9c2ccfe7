"""Faces in frames: landmarks, head pose, crops that follow a face, and pasting an animated crop back."""
