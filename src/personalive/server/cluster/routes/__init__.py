"""The ingress's routes: those of the single server, each asked of one replica, of the right one, or of all."""
