"""Several processes, one memory: groups, gradient exchange, rounds, membership and snapshots."""
