"""Several GPUs, one memory: groups, gradient exchange, rounds, membership and snapshots."""
