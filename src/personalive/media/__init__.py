"""Files and bytes to frames, and back: images, video, audio, and the mark of a synthetic output."""
