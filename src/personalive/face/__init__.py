"""Faces in frames: landmarks, head pose, crops that follow a face, and putting an animated crop back."""
