"""What torchrun tells the processes that it starts; without torch."""

import os


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def is_helper() -> bool:
    """Whether this process has to `sharded.serve` rank 0 instead of running the command itself."""
    return under_torchrun() and int(os.environ["RANK"]) > 0
