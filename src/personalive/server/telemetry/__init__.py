"""The server's log lines, metrics, session statistics, and event loop lag."""
