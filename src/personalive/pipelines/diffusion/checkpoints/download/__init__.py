"""Download of the released weights from the hub, or copies from another folder: planned, resumed and verified."""
