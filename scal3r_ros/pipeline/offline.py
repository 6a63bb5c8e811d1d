"""A recording through the mapper, with progress, checkpoints to resume from, and results."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scal3r_ros.config import Config
from scal3r_ros.files import explained, write_text
from scal3r_ros.io.bad_images import BadImages
from scal3r_ros.io.exports.formats import write as write_formats
from scal3r_ros.io.image_files import IMAGE_SUFFIXES
from scal3r_ros.io.measurements import MeasurementFeed, Measurements
from scal3r_ros.io.pictures import draw_depth
from scal3r_ros.io.report import write_report
from scal3r_ros.io.source import BadInput, FrameSource, SourceImage, content_of
from scal3r_ros.io.stamp_order import with_jumps
from scal3r_ros.mapping.frame_gate import FrameGate
from scal3r_ros.options import to_dict
from scal3r_ros.pipeline.export import REPORT, export, report
from scal3r_ros.pipeline.interrupts import WaitingInterrupts
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.remarks import remarks
from scal3r_ros.pipeline.save import MAP_FILE
from scal3r_ros.reconstruct.interface import Reconstructor
from scal3r_ros.records import GOOD_NEWS, Event, Frame, MapUpdate

WORK = ".resume"
"""Folder in the output folder with what `--resume` needs; gone after a complete run."""
FAILED_REPORT = "report_failed.json"
"""Of a run that mapped nothing into a folder with the results of an earlier one."""
_KEPT_EVENTS = 1000
log = logging.getLogger(__name__)

OnImage = Callable[[int, Mapper], None]
"""Called after every image with the number of images read."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    frames: int
    """Frames with a pose in the largest connected part."""
    files: tuple[Path, ...]
    events: tuple[Event, ...]
    input_error: str = ""
    """Why reading ended early; what was read until then is mapped and written."""


@dataclass
class _Journal:
    """What the report tells beyond the map itself."""

    events: list[Event] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)

    def note(self, updates: Sequence[MapUpdate]) -> None:
        for update in updates:
            self.loops += update.loops
            self.note_events(update.events)

    def note_events(self, events: Iterable[Event]) -> None:
        for event in events:
            level = logging.INFO if event.name in GOOD_NEWS else logging.WARNING
            log.log(level, "%s: %s", event.name, event.message)
            self.events.append(event)
        del self.events[:-_KEPT_EVENTS]


def run(
    config: Config,
    source: FrameSource,
    reconstructor: Reconstructor,
    out: str | Path,
    resume: bool = False,
    progress: OnImage | None = None,
    save_every: float = 30.0,
    measurements: Measurements | None = None,
    formats: Sequence[str] = (),
) -> RunResult:
    """Map `source` and write the results to the folder `out`; `measurements` tell scale and level,
    `formats` are written as well.

    With `resume` an interrupted run into the same folder goes on. On an interrupt the state is
    saved and the exception passes through. Raises `BadInput`, `SaveFailed`.
    """
    out = Path(out)
    session = _Session(config, source, reconstructor, out, resume, measurements)
    try:
        with session.interrupts:
            error = session.feed(progress, save_every)
            session.drain()
    except KeyboardInterrupt:
        session.save_for_resume()
        raise
    return session.finish(error, formats)


class _Session:
    """One run: the mapper, the gate and the folder they can be resumed from."""

    def __init__(
        self,
        config: Config,
        source: FrameSource,
        reconstructor: Reconstructor,
        out: Path,
        resume: bool,
        measurements: Measurements | None,
    ) -> None:
        self._measurements = measurements
        self._source, self._out, self._work = source, out, out / WORK
        require_apart(out, source.files)
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
        self._gate = FrameGate(config.gate)
        self._journal = _Journal()
        self._identity = _identity(config, source, reconstructor, measurements)
        resumes = resume and (self._work / MAP_FILE).is_file()
        if resumes:
            known = self._check_identity()
        else:
            known = ()
            shutil.rmtree(self._work, ignore_errors=True)
        self._stretched: dict[int, list[float]] = {}
        """By frame, what the source's stretch knew before it was decoded; of the last two."""
        self._bad = BadImages(config.input.max_bad, len(source), known)
        self.mapper = Mapper(config, reconstructor, self._work / "loop_records")
        self.interrupts = WaitingInterrupts(lambda: self.mapper.consistent)
        if measurements is not None and measurements.T_base_camera is not None:
            self.mapper.set_camera_mount(measurements.T_base_camera)
        if resumes:
            self._journal.note_events(self.mapper.load(self._work))
            log.info("resuming after frame %d", self.mapper.next_frame_id - 1)

    def feed(self, progress: OnImage | None, save_every: float) -> str:
        """Read to the end; returns the error that ended reading early."""
        self._saved_at, self._pause = time.monotonic(), save_every
        kept = seen = 0
        starts_session = False
        try:
            feed = MeasurementFeed(self._measurements) if self._measurements else None
            for image, jumped_back in with_jumps(self._source):
                if jumped_back:
                    self._gate.reset()
                decision = self._gate.admit(image.stamp_ns)
                seen += 1
                if feed is not None and decision.keep:
                    feed.until(image.stamp_ns, self.mapper)
                starts_session |= decision.starts_session or jumped_back
                if decision.keep and image.id not in self._bad:
                    if kept < self.mapper.next_frame_id:  # mapped before the interruption
                        kept, starts_session = kept + 1, False
                    elif (frame := self._decode(image, kept)) is not None:
                        self.take(self.mapper.add(frame, starts_session))
                        kept, starts_session = kept + 1, False
                        self.interrupts.act()
                        self._save_if_due(save_every)
                if progress is not None:
                    progress(seen, self.mapper)
            self._note_left_out(self._bad.finish(seen))
        except BadInput as error:
            if not self.mapper.next_frame_id:
                raise
            return str(error)
        return ""

    def _decode(self, image: SourceImage, frame_id: int) -> Frame | None:
        """The frame; None if the image is one of the bad ones that may be left out."""
        self._stretched = {
            frame_id - 1: self._stretched.get(frame_id - 1, []),
            frame_id: self._source.stretch.state(),
        }
        try:
            return replace(image.decode(), id=frame_id)
        except BadInput as error:
            self._bad.note(image.id, error)
            return None

    def _note_left_out(self, message: str) -> None:
        if message:
            log.warning("bad_images: %s", message)
            self._journal.events.append(Event("bad_images", message))

    def drain(self) -> None:
        """Map what is waiting at the end."""
        log.info("everything is read; mapping what is left")
        self.take(self.mapper.flush())
        self.interrupts.act()
        if self.mapper.config.memory.mode == "finalize":
            self.take(self.mapper.finalize())

    def save_for_resume(self) -> None:
        """Save after an interrupt, unless it fell into the middle of a change of the map; then the
        last save counts."""
        if self.mapper.consistent:
            self._save()

    def take(self, updates: Sequence[MapUpdate]) -> None:
        """Note what happened; draw a depth map now and then."""
        self._journal.note(updates)
        if any(u.poses and _is_milestone(u.chunk_index) for u in updates):
            prediction = self.mapper.latest()
            if prediction is not None and len(prediction.frame_ids):
                path = self._work / f"depth_{prediction.frame_ids[-1]:06d}.png"
                if not path.exists():
                    last = (prediction.rgb[-1], prediction.depth[-1], prediction.confidence[-1])
                    draw_depth(path, *last)

    def finish(self, input_error: str, formats: Sequence[str] = ()) -> RunResult:
        """Write the results, then forget what resuming needed.

        A run without a single pose leaves the results of an earlier one, and reports beside them.
        """
        for event in remarks(self.mapper, self._gate):
            log.warning("%s: %s", event.name, event.message)
            self._journal.events.append(event)
        facts: dict[str, Any] = {
            "source": self._source.description,
            "measurements": self._measurements.description if self._measurements else None,
            "gate": dict(self._gate.counts),
            "loop_frames": self._journal.loops,
            "events": [[e.name, e.chunk_index, e.message] for e in self._journal.events],
            "input_error": input_error or None,
        }
        failed = self._out / FAILED_REPORT
        if not self.mapper.trajectory() and (self._out / REPORT).is_file():
            write_report(failed, {**report(self.mapper, []), **facts})
            shutil.rmtree(self._work, ignore_errors=True)
            return RunResult(0, (failed,), tuple(self._journal.events), input_error)
        files = export(self.mapper, self._out, facts)
        files += write_formats(self.mapper.view(), self._out, formats)
        replace_pictures(self._work, self._out)
        failed.unlink(missing_ok=True)
        shutil.rmtree(self._work, ignore_errors=True)
        frames = sum(1 for line in files[0].read_text().splitlines() if line[:1] != "#")
        return RunResult(frames, tuple(files), tuple(self._journal.events), input_error)

    def _save_if_due(self, save_every: float) -> None:
        """Save now and then, and never for more than a tenth of the time."""
        started = time.monotonic()
        if started - self._saved_at >= self._pause:
            self._save()
            self._saved_at = time.monotonic()
            self._pause = max(save_every, 10.0 * (self._saved_at - started))

    def _save(self) -> None:
        self._journal.note_events(self.mapper.save(self._work))
        journal = {
            "identity": self._identity,
            "loops": self._journal.loops,
            "bad": self._bad.ids,
            "stretch": self._stretched.get(self.mapper.next_frame_id, self._source.stretch.state()),
            "events": [[e.name, e.message, e.chunk_index] for e in self._journal.events],
        }
        write_text(self._work / "run.json", json.dumps(journal))

    def _check_identity(self) -> tuple[int, ...]:
        """Take over the journal; returns the ids of images that were bad."""
        try:
            saved = json.loads((self._work / "run.json").read_text())
            identity = saved["identity"]
            self._journal.loops = [(int(first), int(second)) for first, second in saved["loops"]]
            self._journal.events = [Event(*values) for values in saved["events"]]
            bad = tuple(int(image_id) for image_id in saved["bad"])
            self._source.stretch.resume(saved["stretch"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadInput(
                f"what {self._out} holds of an interrupted run is damaged ({error}); leave "
                f"--resume out to start again"
            ) from error
        if identity != self._identity:
            raise BadInput(
                f"{self._out} holds an interrupted run with other options or another input; give "
                f"the same ones, or leave --resume out to start again"
            )
        return bad


def _identity(
    config: Config,
    source: FrameSource,
    reconstructor: Reconstructor,
    measurements: Measurements | None,
) -> str:
    facts = [to_dict(config), source.description, content_of(source.files), reconstructor.name]
    facts += [measurements.description] if measurements is not None else []
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def replace_pictures(made: Path, out: Path) -> None:
    """Depth pictures of this run in place of those of an earlier one."""
    for old in out.glob("depth_" + "[0-9]" * 6 + ".png"):
        old.unlink()
    for new in made.glob("depth_*.png"):
        new.replace(out / new.name)


def require_apart(out: Path, files: Iterable[Path]) -> None:
    """Raise `BadInput` if results would lie among the images, as images of the next run."""
    if out.resolve() in {
        path.parent.resolve() for path in files if path.suffix.lower() in IMAGE_SUFFIXES
    }:
        raise BadInput(
            f"--out {out} is a folder of input files; results are images too, so choose another"
        )


def _is_milestone(chunk: int) -> bool:
    """0, 1, 2, 4, 8...: a few depth maps of any recording."""
    return chunk & (chunk - 1) == 0
