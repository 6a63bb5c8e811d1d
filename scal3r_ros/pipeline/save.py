"""A mapper's state in a folder and back: mapping goes on in the same frame after a restart."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.files import SaveFailed
from scal3r_ros.io.map_store import BadMapFile, read_map, write_map
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.state_arrays import pack_state, unpack_memory, unpack_state
from scal3r_ros.reconstruct.interface import MemoryLost, MemoryState, Reconstructor, known_memory
from scal3r_ros.records import Event

MAP_FILE = "map_state.npz"
_NAME = re.compile("[0-9a-f]{32}")
EXPORTS = "export"
"""Folder beside a saved map for files of other programs."""
_FILES = "files"
"""Folder beside a saved map with a folder of files for each save under way."""


def new_files() -> str:
    """A name for a folder of files that go with a map, which no other map uses."""
    return uuid4().hex


def remove_files(folder: Path, keep: str = "") -> None:
    """Remove folders that got their names from `new_files`, except `keep`, and nothing else."""
    for path in folder.glob("*"):
        if _NAME.fullmatch(path.name) and path.name != keep and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def check_target(folder: Path, overwrite: bool) -> None:
    """Raise `SaveFailed` for a folder that holds other things than a map of ours; with `overwrite`
    those are left alone. What belongs to a map is never put behind a link."""
    if (folder / _FILES).is_symlink():
        raise SaveFailed(f"{folder / _FILES} is a link; remove it, or save to another folder")
    if not folder.exists() or overwrite:
        return
    if not folder.is_dir():
        raise SaveFailed(f"{folder} is a file; save to another folder")
    others = [path.name for path in folder.iterdir() if not _is_ours(path)]
    if others and not (folder / MAP_FILE).is_file():
        raise SaveFailed(
            f"{folder} holds {min(others)} and no map; save to another folder, or set "
            f"autosave.overwrite to save beside it"
        )


def _is_ours(path: Path) -> bool:
    """Of a map, of a save that was killed, or of an export beside them."""
    partial = path.name.startswith(f".{MAP_FILE}.")
    return path.name in (MAP_FILE, _FILES, EXPORTS) or partial


@dataclass(frozen=True)
class Loaded:
    """A map that was read."""

    state: MappingState
    events: tuple[Event, ...]
    """What could not be taken over."""


def write_state(
    state: MappingState, reconstructor: Reconstructor, folder: Path, name: str
) -> list[Event]:
    """Write a map and the reconstructor's memory; atomic. `name` is that of its files beside it,
    which stay as they are from save to save of one map. Of a memory that is lost what was known
    last is written, which the event tells that is returned. Raises `SaveFailed`."""
    events = []
    with _files_for(folder, name) as beside:
        memory: MemoryState | None
        try:
            memory, kept = reconstructor.state(), state.history.save(reconstructor, beside)
        except MemoryLost as lost:
            memory, kept = lost.last_known, {}
            events.append(_memory_event(lost))
        arrays, facts = pack_state(state, memory, reconstructor.round_size)
        state.loops.copy_records(beside)
        write_map(folder / MAP_FILE, arrays, {**facts, **kept, "files": name})
    return events


def _memory_event(lost: MemoryLost) -> Event:
    if lost.last_known is None:
        text = f"saved without the network's memory, which begins anew after loading: {lost}"
        return Event("memory_not_saved", text)
    chunks = lost.last_known.version
    return Event("memory_outdated", f"saved with the memory of the first {chunks} chunks: {lost}")


def read_state(config: Config, reconstructor: Reconstructor, folder: Path, records: Path) -> Loaded:
    """What `write_state` wrote, as a state of its own; then the reconstructor takes its memory.

    `records` is an empty folder for what loops need. Raises `BadMapFile`, or `ValueError` for
    another network's memory; the reconstructor's memory is then as it was.
    """
    found, memory, beside = _read(config, folder, records)
    events = list(found.events)
    if memory is None:
        reconstructor.reset()
        events.append(Event("memory_not_saved", "the map has no memory; it begins anew"))
    else:
        _restore(reconstructor, memory, found.state, beside)
    return Loaded(found.state, tuple(events))


def read_map_alone(config: Config, folder: Path, records: Path) -> Loaded:
    """What `write_state` wrote, without the reconstructor's memory; raises `BadMapFile`."""
    return _read(config, folder, records)[0]


def _read(config: Config, folder: Path, records: Path) -> tuple[Loaded, MemoryState | None, Path]:
    """A saved map, its memory (None if it was lost), and where its files are."""
    arrays, facts = read_map(folder / MAP_FILE)
    state = MappingState.empty(config, records)
    with _named_damage(folder / MAP_FILE):
        unpack_state(state, arrays, facts)
        saved = facts["memory"]
        memory = None if saved is None else unpack_memory(arrays, saved)
        beside = _files_of(folder, facts)
        state.history.read(facts)
        _check(state)
    state.loops.fetch_records(beside)
    events = [
        Event("loop_record_damaged", f"{text}; no loop will be found there")
        for text in state.loops.records.damaged
    ]
    return Loaded(state, tuple(events)), memory, beside


def _check(state: MappingState) -> None:
    """Raise `BadMapFile` where parts of a map contradict each other."""
    live_map = state.live_map
    placed = np.array([S.matrix() for S in live_map.graph.nodes.values()])
    if not np.isfinite(placed).all():
        raise BadMapFile("a chunk of the map has no finite place")
    unknown = live_map.trajectory.chunks - live_map.graph.nodes.keys()
    if unknown:
        raise BadMapFile(f"frames belong to chunks that the map has not: {sorted(unknown)[:5]}")
    newest = max([-1, *live_map.trajectory.frame_ids, *(f.id for f in state.chunks.frames)])
    if state.next_frame_id <= newest:
        raise BadMapFile(f"frame {newest} is there, and {state.next_frame_id} would be the next")
    if live_map.open is not None and live_map.open.summary.index not in live_map.graph.nodes:
        raise BadMapFile(f"the open chunk {live_map.open.summary.index} has no place in the map")


@contextmanager
def _files_for(folder: Path, name: str) -> Iterator[Path]:
    """Where to put files of a map that is written to `folder` inside the block. Those of the map
    that is there now stay until the block ends well, so that a save that dies mixes nothing."""
    yield folder / _FILES / name
    remove_files(folder / _FILES, keep=name)


def _files_of(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Where the files of a saved map are; in maps of older versions, beside it."""
    if "files" not in facts:
        return folder
    if not _NAME.fullmatch(facts["files"]):
        raise BadMapFile(f"the map's files cannot be in {facts['files']!r}; the map is damaged")
    return folder / _FILES / facts["files"]


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """Raise `BadMapFile` for any error that wrong values in the file cause while it is read."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise BadMapFile(
            f"{path} is damaged ({type(error).__name__}: {error}); go on from another save"
        ) from error


def _restore(
    reconstructor: Reconstructor, memory: MemoryState, state: MappingState, beside: Path
) -> None:
    """Both of what a reconstructor keeps, or neither."""
    before = known_memory(reconstructor)
    reconstructor.restore(memory)
    try:
        with _named_damage(beside):
            state.history.load_chunks(reconstructor, beside)
    except BaseException:
        reconstructor.reset() if before is None else reconstructor.restore(before)
        raise
