"""Follow the driver's face through a stream, ahead of the steps where frames are known."""
