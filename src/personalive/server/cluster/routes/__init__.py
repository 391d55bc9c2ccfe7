"""The ingress's routes: the single server's, passed to any replica, to the session's replica, or to all."""
