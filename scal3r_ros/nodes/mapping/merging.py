"""Saved maps are merged beside the mapping: a thread and a reconstructor of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from scal3r_ros.pipeline.progress import Progress


def merge_in_background(
    node: Any, make_mapper: Callable, maps: Sequence[str], out: str, progress: Progress
) -> Future:
    """Merge maps in a thread; its result are response fields. `make_mapper` opens the configured
    reconstructor, which does not know that of the live map."""
    future: Future = Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(_merged(node, make_mapper, maps, out, progress))
        except Exception as error:  # belongs to whoever asked
            future.set_exception(error)

    threading.Thread(target=run, name="merge", daemon=True).start()
    return future


def _merged(
    node: Any, make_mapper: Callable, maps: Sequence[str], out: str, progress: Progress
) -> dict:
    from scal3r_ros.pipeline.merge import REPORT, merge

    folders = [Path(folder).expanduser().absolute() for folder in maps]
    target = Path(out).expanduser().absolute()
    progress.at("loading the network")
    _, reconstructor = make_mapper(node, node.config)
    try:
        joined = merge(node.config, reconstructor, folders, target, progress=progress)
    finally:
        reconstructor.close(timeout=1.0)
    alarms = [f"{entry.folder}: {alarm}" for entry in joined for alarm in entry.alarms]
    frames = sum(entry.frames for entry in joined)
    message = "; ".join([f"{len(joined)} maps, {frames} frames in {target}", *alarms])
    return {"message": message, "path": str(target), "report": str(target / REPORT)}
