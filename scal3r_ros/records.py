"""Records that cross layers: frames in, chunk predictions between, map updates out. numpy only.

Conventions: camera axes are OpenCV's (x right, y down, z forward); pixel (column 0, row 0) has its
centre at (0.5, 0.5); `T_a_b` is a rigid 4x4 transform that maps points of frame b into frame a;
times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

GAUGES = ("free", "rigid", "common")
SECOND_NS = 1_000_000_000
"""Nanoseconds in a second."""


@dataclass(frozen=True)
class Frame:
    """One camera image that may become part of the map."""

    id: int
    """Unique and increasing in a session; overlap between chunks is matched by it, never by
    position."""
    stamp_ns: int
    rgb: np.ndarray
    """(H, W, 3) uint8."""
    intrinsics: np.ndarray | None = None
    """(3, 3) float64 pinhole matrix for `rgb` (rectified), None when unknown."""

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise ValueError(
                f"frame {self.id}: rgb must be (H, W, 3) uint8, found {self.rgb.shape} "
                f"{self.rgb.dtype}; convert it first"
            )
        if 0 in self.rgb.shape:
            raise ValueError(f"frame {self.id}: empty image {self.rgb.shape}; leave it out")


@dataclass(frozen=True)
class Chunk:
    """Frames that the network sees together, in chronological order."""

    index: int
    """Unique and increasing over everything given to a reconstructor, loop chunks included."""
    session: int
    """Chunks of one sub-session form a chain; a gap in the stream starts the next one."""
    frames: tuple[Frame, ...]
    overlap_ids: tuple[int, ...] = ()
    """Frame ids shared with the previous chunk of the chain; empty for the first one and for
    loop chunks."""
    kind: str = "sequence"
    """`sequence`; `loop`, two places that may be one; `context`, frames picked evenly over many
    chunks."""
    first_size: tuple[int, int] | None = None
    """Height and width of the first image of the sequence: it decides what all images are resized
    to, whoever reconstructs the chunk. None: of the first one that the reconstructor sees."""

    def __post_init__(self) -> None:
        ids = self.frame_ids
        if not ids:
            raise ValueError(f"chunk {self.index} has no frames; give it at least one")
        if len(set(ids)) != len(ids):
            raise ValueError(f"chunk {self.index} holds a frame twice: ids {ids}")
        if not set(self.overlap_ids) <= set(ids):
            raise ValueError(
                f"chunk {self.index}: overlap ids {self.overlap_ids} are not all among its frames "
                f"{ids}"
            )

    @property
    def frame_ids(self) -> tuple[int, ...]:
        return tuple(frame.id for frame in self.frames)

    @property
    def summary(self) -> ChunkSummary:
        stamps = tuple(frame.stamp_ns for frame in self.frames)
        return ChunkSummary(self.index, self.session, self.frame_ids, stamps, self.overlap_ids)


@dataclass(frozen=True)
class ChunkSummary:
    """A chunk without its images."""

    index: int
    session: int
    frame_ids: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    overlap_ids: tuple[int, ...]

    @staticmethod
    def read(values: Mapping[str, Any]) -> ChunkSummary:
        """From the values that `asdict` gave, after a trip through a file."""
        own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ChunkSummary(**own)


@dataclass(frozen=True)
class ChunkPrediction:
    """What a reconstructor found out about a chunk, in the chunk's own coordinates and unknown
    scale.

    Holds only the frames that could be reconstructed, in chronological order; `missing_ids` names
    the others.
    """

    chunk_index: int
    frame_ids: tuple[int, ...]
    T_chunk_camera: np.ndarray
    """(S, 4, 4) float64, rigid, chunk units."""
    intrinsics: np.ndarray
    """(S, 3, 3) float64 pinhole matrices, in pixels of `depth`."""
    depth: np.ndarray
    """(S, H, W) float32, z-depth in chunk units; NaN where unknown."""
    confidence: np.ndarray
    """(S, H, W) float32, larger is better; 0 where depth is unknown."""
    rgb: np.ndarray
    """(S, H, W, 3) uint8, the image that each depth pixel belongs to."""
    missing_ids: tuple[int, ...] = ()
    descriptors: np.ndarray | None = None
    """(S, D) float32, unit length, for place recognition; None if the reconstructor has none."""
    points: np.ndarray | None = None
    """(S, H, W, 3) float32 from the point head in chunk coordinates; None unless asked for."""
    gauge: str = "free"
    """What the poses mean beside those of the previous chunk of the chain: `free`, own frame and
    scale, joined by a similarity; `rigid`, the same scale, joined by the pose of a shared frame;
    `common`, the same frame and scale, joined as they are."""
    starts_segment: bool = False
    """With another gauge than `free`: the memory that carries the scale was emptied before this
    chunk, so that nothing but its overlap ties its scale to earlier ones."""
    memory_version: int = 0
    """Number of chunks that the memory had absorbed when this prediction was made."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    note: str = ""
    """What a user should know of how it came about, such as whether it was refined."""

    def __post_init__(self) -> None:
        if self.gauge not in GAUGES:
            raise ValueError(f"gauge must be one of {', '.join(GAUGES)}; found {self.gauge!r}")
        count = len(self.frame_ids)
        shapes = {
            "T_chunk_camera": (self.T_chunk_camera.shape, (count, 4, 4)),
            "intrinsics": (self.intrinsics.shape, (count, 3, 3)),
            "depth": (self.depth.shape[:1] + self.depth.shape[3:], (count,)),
            "confidence": (self.confidence.shape, self.depth.shape),
            "rgb": (self.rgb.shape, (*self.depth.shape, 3)),
        }
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise ValueError(
                    f"prediction of chunk {self.chunk_index}: {name} is {found}, expected "
                    f"{expected}"
                )

    def of_frames(self, frame_ids: Iterable[int]) -> ChunkPrediction:
        """The prediction of some of its frames only."""
        wanted = set(frame_ids)
        rows = [i for i, frame_id in enumerate(self.frame_ids) if frame_id in wanted]
        descriptors, points = self.descriptors, self.points
        return replace(
            self,
            frame_ids=tuple(self.frame_ids[i] for i in rows),
            T_chunk_camera=self.T_chunk_camera[rows],
            intrinsics=self.intrinsics[rows],
            depth=self.depth[rows],
            confidence=self.confidence[rows],
            rgb=self.rgb[rows],
            descriptors=None if descriptors is None else descriptors[rows],
            points=None if points is None else points[rows],
        )


@dataclass(frozen=True)
class TrajectoryPose:
    """Pose of one frame in the map."""

    frame_id: int
    stamp_ns: int
    T_map_camera: np.ndarray
    """(4, 4) float64, rigid; camera is the optical frame; metres only once the map's
    scale is frozen."""
    covariance: np.ndarray
    """(6, 6) float64 in the map frame: x y z, then rotation vector; large where unknown."""
    confidence: float
    chunk_index: int
    provisional: bool
    """True until the next chunk has confirmed which chunk owns this frame."""
    covariance_in_chunk: np.ndarray = field(default_factory=lambda: np.eye(6))
    """(6, 6) along the axes of the map: the part of `covariance` that the other frames of the
    chunk do not share."""


@dataclass(frozen=True)
class ScaleEstimate:
    """How long a map unit is, how that is known, and whether the map is in metres yet."""

    source: str = "none"
    """`none`, or names of `scale.source` joined by `+`."""
    value: float = 1.0
    """Metres per map unit as the map is now: 1 once it was rescaled."""
    variance: float = float("inf")
    """Of `value`."""
    frozen: bool = False
    """True once the map was rescaled: its coordinates are metres, and it is never rescaled
    again."""
    applied: float = 1.0
    """What coordinates were multiplied by when the map was rescaled; 1 until then."""

    @property
    def known(self) -> bool:
        return self.source != "none" and np.isfinite(self.variance)


@dataclass(frozen=True)
class Event:
    """Something a user should know: a failed alignment, a gap, a rejected loop, a thinned frame."""

    name: str
    """Short snake_case name that counters and diagnostics use, e.g. `alignment_failed`."""
    message: str
    chunk_index: int | None = None


GOOD_NEWS = ("loop_closed", "scale_frozen", "refinement", "context_tied")
"""Events that are logged as information, all others as warnings; a few per chunk at most."""


@dataclass(frozen=True)
class MapUpdate:
    """What one integrated chunk changed; everything in it belongs to `map_revision`."""

    map_revision: int
    chunk_index: int
    session: int
    poses: tuple[TrajectoryPose, ...]
    """New or re-issued poses; after a correction (`corrected`) every pose whose place or covariance
    is not as it was told before."""
    points: np.ndarray
    """(N, 3) float32 new points in the map frame."""
    colors: np.ndarray
    """(N, 3) uint8."""
    confidence: np.ndarray
    """(N,) float32."""
    corrected: bool
    """True if a loop closure, re-alignment or rescaling moved what was published before."""
    scale: ScaleEstimate = ScaleEstimate()
    loops: tuple[tuple[int, int], ...] = ()
    """Frame id pairs of loops accepted with this chunk."""
    events: tuple[Event, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)


def split_images(pixels: np.ndarray, sizes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Views of images (h, w, 3) that lie one behind the other in `pixels`."""
    ends = np.cumsum([np.prod(size, dtype=int) for size in sizes])
    return [part.reshape(size) for part, size in zip(np.split(pixels, ends[:-1]), sizes)]
