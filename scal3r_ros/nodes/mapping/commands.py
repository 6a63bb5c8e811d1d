"""What the services ask of the map: commands run on the worker and answer with response fields."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from scal3r_ros.io.exports.formats import check_names, write
from scal3r_ros.io.tracked import write_tracked
from scal3r_ros.nodes.mapping.services import NotPossible
from scal3r_ros.pipeline.localisation import MAPPING
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.pipeline.save import EXPORTS, check_target

TRACKED = "tracked.csv"
"""Of an export: the pose of every image as it was published."""


class MapCommands:
    """Call from the executor's thread; the futures are completed by the worker."""

    def __init__(self, session) -> None:
        self._session = session
        self._saved = (0, 0)
        """Revision and next frame id of the map last saved."""
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0
        """How long the last save took."""
        self._autosave: Future | None = None
        self._unanswered: dict[Future, tuple[str, float]] = {}
        """Name and time of what was asked for and waits; grown and emptied by several threads."""
        self.saved_at_end = False
        """Whether the save on shutdown was written."""

    def reset(self) -> Future:
        """Empty map, trajectory and memory, and forget the stream."""
        self._session.input.reset()

        def run(mapper: Any) -> dict:
            mapper.reset()
            self._worker.follow(None)
            self._worker.deliver(replaced=True)
            return {"message": "the map is empty"}

        return self._submit("reset", run)

    def flush(self) -> Future:
        """Map every frame that was received, the unfinished chunk included."""
        self._session.input.release_held()

        def run(mapper: Any) -> dict:
            self._worker.process_queue()
            updates = mapper.flush()
            self._worker.deliver(updates, final=True)
            poses = len(mapper.trajectory())
            return {"message": f"{poses} frames in the map at revision {mapper.map_revision}"}

        return self._submit("flush", run)

    def finalize(self, progress: Progress) -> Future:
        """Recompute what the network's memory can improve in hindsight."""
        mode = self._session.config.memory.mode
        if mode != "finalize":
            raise NotPossible(f"memory.mode is {mode}; set it to finalize before configure")
        self._session.input.release_held()

        def run(mapper: Any) -> dict:
            self._worker.process_queue()
            updates = mapper.flush()
            try:
                updates += mapper.finalize(progress)
            finally:
                self._worker.deliver([*updates, *mapper.take_updates()], final=True)
            revision = mapper.map_revision
            return {"message": f"finalized at revision {revision}", "map_revision": revision}

        return self._submit("finalize", run)

    def save(self, path: str, progress: Progress) -> Future:
        """Write map, trajectory, graph and memory together."""
        folder = self.folder(path)

        def run(mapper: Any) -> dict:
            progress.at("writing")
            return self._save(mapper, folder)

        return self._submit("save_map", run, reads=True)

    def load(self, path: str) -> Future:
        """Replace the map by a saved one, and forget what waits; nothing changes if that fails."""
        folder = self.folder(path)

        def run(mapper: Any) -> dict:
            events = mapper.load(folder)
            self._session.frames.clear()
            trajectory = mapper.trajectory()
            self._worker.follow(mapper.last_stamp_ns)
            self._worker.deliver(replaced=True, final=True)
            return {
                "message": "; ".join([f"loaded {folder}", *(event.message for event in events)]),
                "map_revision": mapper.map_revision,
                "frames": len(trajectory),
                "points": mapper.points_count,
            }

        return self._submit("load_map", run)

    def set_mode(self, mode: str) -> Future:
        """Map on, or leave the map as it is and tell where in it the camera is."""

        def run(mapper: Any) -> dict:
            mapper.set_mode(mode)
            self._worker.follow(mapper.last_stamp_ns)
            self._worker.deliver(replaced=True, final=True)
            return {"message": f"mode is {mapper.mode}"}

        return self._submit("set_mode", run)

    def begin(self, load_path: str, mode: str) -> None:
        """What the node starts with; a failure is logged and leaves an empty map."""
        asked = [self.load(load_path)] if load_path else []
        asked += [self.set_mode(mode)] if mode != MAPPING else []
        for future in asked:
            future.add_done_callback(self._report_beginning)

    def export(self, path: str, formats: Sequence[str], progress: Progress) -> Future:
        """Write the map for other programs, by default trajectory, cloud and report."""
        folder = self.folder(path) if path else self.folder("") / EXPORTS
        check_names(formats)

        def run(mapper: Any) -> dict:
            from scal3r_ros.pipeline.export import export

            progress.at("writing")
            if formats:
                written = write(mapper.view(), folder, formats)
            else:
                written = export(mapper, folder, progress=progress)
            files = [str(file) for file in written]
            tracking = self._session.tracking
            if not formats and tracking is not None and tracking.record:
                files.append(str(folder / TRACKED))
                write_tracked(files[-1], list(tracking.record))
            return {"message": f"{len(files)} files in {folder}", "files": files}

        return self._submit("export", run, reads=True)

    def progress(self) -> list[str]:
        """A sentence about everything that was asked for and has no answer yet."""
        now, waiting = time.monotonic(), len(self._session.frames)
        return [
            f"{name} asked for {now - since:.1f} s ago; {waiting} images wait in the queue"
            for name, since in list(self._unanswered.values())
        ]

    def last_save(self, mapper: Any) -> None:
        """The save on shutdown, on the worker's thread."""
        if len(mapper.trajectory()) and mapper.mode == MAPPING:
            answer = self._save(mapper, self.folder(""))
            self.saved_at_end = True
            self._session.node.get_logger().info(answer["message"])

    def autosave_if_due(self) -> None:
        """Save every `autosave.period` seconds while the map changes, and never for more than a
        tenth of the time; none while one waits for a long chunk to end."""
        wanted, mapper = self._session.config.autosave, self._worker.mapper
        pause = max(wanted.period, 9.0 * self._save_seconds)
        if not (wanted.period and wanted.path) or mapper is None:
            return
        if time.monotonic() - self._saved_at < pause:
            return
        if self._autosave is not None and not self._autosave.done():
            return
        if mapper.mode != MAPPING:
            return
        self._saved_at = time.monotonic()
        if (mapper.map_revision, mapper.next_frame_id) != self._saved:
            self._autosave = self.save("", Progress())
            self._autosave.add_done_callback(self._report_autosave)

    def folder(self, path: str) -> Path:
        """The folder that a request means; empty is `autosave.path`, or one under ~/.ros."""
        chosen = path or self._session.config.autosave.path
        if chosen:
            return Path(chosen).expanduser().absolute()
        name = self._session.node.get_fully_qualified_name().strip("/").replace("/", "_")
        return Path.home() / ".ros" / "scal3r" / name

    @property
    def _worker(self):
        return self._session.worker

    def _submit(self, name: str, run: Callable[[Any], dict], reads: bool = False) -> Future:
        """Ask the worker, and remember that until it has answered."""
        future = self._worker.submit(run, reads=reads)
        self._unanswered[future] = (name, time.monotonic())
        future.add_done_callback(lambda done: self._unanswered.pop(done, None))
        return future

    def _save(self, mapper: Any, folder: Path) -> dict:
        started = time.monotonic()
        check_target(folder, self._session.config.autosave.overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        events = mapper.save(folder)
        self._save_seconds = time.monotonic() - started
        self._saved = (mapper.map_revision, mapper.next_frame_id)
        return {
            "message": "; ".join([f"saved {folder}", *(event.message for event in events)]),
            "path": str(folder),
            "map_revision": mapper.map_revision,
        }

    def _report_beginning(self, done: Future) -> None:
        logger = self._session.node.get_logger()
        if done.exception() is not None:
            logger.error(f"the node begins without what was asked for: {done.exception()}")
        else:
            logger.info(done.result()["message"])

    def _report_autosave(self, done: Future) -> None:
        if done.exception() is not None:
            self._session.node.get_logger().error(f"autosave failed: {done.exception()}")
