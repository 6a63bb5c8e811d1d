"""Whether torchrun has started this process beside others, and what that means for the network.

Loads torch only where there are several processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scal3r_ros.config import Config
from scal3r_ros.reconstruct.factory import check_processes, open_reconstructor
from scal3r_ros.reconstruct.interface import Reconstructor


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def is_helper() -> bool:
    """Whether this process has to `sharded.serve` rank 0 instead of running the command itself."""
    return under_torchrun() and int(os.environ["RANK"]) > 0


@contextmanager
def opened_reconstructor(config: Config, folder: Path | None = None) -> Iterator[Reconstructor]:
    """The configured reconstructor, over all processes that torchrun has started; they end with the
    block.

    After an error there is nothing to agree on with them: this process ends, and torchrun the rest.
    """
    reconstructor = _open(config, folder)
    yield reconstructor
    if hasattr(reconstructor, "close"):
        reconstructor.close()


def _open(config: Config, folder: Path | None) -> Reconstructor:
    if not under_torchrun():
        return open_reconstructor(config, folder)
    check_processes(config.model.reconstructor, "torchrun")
    from scal3r_ros.workers.sharded import open_sharded

    return open_sharded(config)
