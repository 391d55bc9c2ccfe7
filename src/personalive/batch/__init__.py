"""Many jobs, on this machine or on a Ray cluster: a table in, results, a manifest and a report out."""
