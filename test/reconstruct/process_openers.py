"""What the process of a `ProcessReconstructor` opens; it imports this by its name."""

import os
import signal

from oracle_node import DEFAULTS, StampOracle

OPTIONS = {**DEFAULTS, "frames": 20}


def open_quick(config):
    return StampOracle(OPTIONS)


def open_slow(config):
    return StampOracle({**OPTIONS, "seconds": 60.0})


def open_broken(config):
    raise ValueError("the weights are missing")


class Fatal(StampOracle):
    """A chunk that begins with one frame ends its process, as one that is too large would."""

    def reconstruct(self, chunk, contribute=True):
        if chunk.frames[0].id == self.options["fatal"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reconstruct(chunk, contribute)


def open_fatal(config):
    return Fatal({**OPTIONS, "fatal": 8})
