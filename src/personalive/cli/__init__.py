"""The command line: one thin file per command; the work is done in the packages below."""
