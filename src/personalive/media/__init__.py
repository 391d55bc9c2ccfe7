"""Files and bytes to frames, and back: images, video, audio, and the mark that says an output is synthetic."""
