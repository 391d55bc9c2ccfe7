"""The motion of a driving clip: extracted once, kept in a file, and used to drive sessions."""
