"""The command line under torchrun, but the helper's first life ends at its third command."""

import itertools
import os
import signal
import sys

from scal3r_ros.cli import main
from scal3r_ros.workers import sharded

commands = itertools.count(1)
obey = sharded._obey


def obey_twice(worker, control):
    if next(commands) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return obey(worker, control)


if __name__ == "__main__":
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        sharded._obey = obey_twice
    sys.exit(main())
