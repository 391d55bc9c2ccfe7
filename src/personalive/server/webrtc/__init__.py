"""Who is connected: WebRTC peers, their channels, and the way through the network."""
