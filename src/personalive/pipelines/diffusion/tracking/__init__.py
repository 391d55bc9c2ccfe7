"""Tracking of the driver's face from frame to frame, ahead of the steps where frames are known."""
