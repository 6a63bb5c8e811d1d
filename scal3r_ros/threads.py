"""How the threads of numerical libraries wait: asleep, so that they leave the processor to others.

By default an idle thread of OpenMP (torch) or OpenBLAS (numpy, scipy) spins for a while in case
work comes soon. Beside other busy processes, as on a robot, that costs more time than it saves. The
libraries read these variables when they are loaded: every entry point calls `wait_passively` before
it imports one. Processes that are started later inherit them. What the user has set stays.
"""

from __future__ import annotations

import os

PASSIVE = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
"""OpenMP's own variable, those of its two runtimes, and OpenBLAS's: it spins 2^4 ticks, its
smallest number."""


def wait_passively() -> None:
    """Set what the user has not set."""
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)
