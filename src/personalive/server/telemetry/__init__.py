"""What a server tells of itself: log lines, metrics, figures of a session, stalls."""
