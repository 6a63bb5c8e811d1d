"""What the process of a `ProcessReconstructor` opens; it imports this by its name."""

from oracle_node import DEFAULTS, StampOracle

OPTIONS = {**DEFAULTS, "frames": 20}


def open_quick(config):
    return StampOracle(OPTIONS)


def open_slow(config):
    return StampOracle({**OPTIONS, "seconds": 60.0})


def open_broken(config):
    raise ValueError("the weights are missing")
