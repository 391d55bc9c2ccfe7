"""WebRTC: signaling, peers, data channels, and ICE."""
