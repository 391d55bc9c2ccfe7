"""A session over one WebSocket, for where UDP does not get through: encoded video both ways, and messages."""
