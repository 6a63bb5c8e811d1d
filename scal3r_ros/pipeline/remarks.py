"""What a run has to say at its end: what is missing or unlikely, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scal3r_ros.mapping.frame_gate import FrameGate
from scal3r_ros.pipeline.export import nearest_surface
from scal3r_ros.pipeline.map_view import connected_parts
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import Event

_NEAR = (0.02, 200.0)
"""Metres from a camera to the nearest surface: of an endoscope, and of a drone."""
_BAD_STAMPS = {
    "duplicate_stamp": "repeats the stamp before",
    "backward_stamp": "has a stamp earlier than the one before",
}
_SCALE_HINTS = {
    "odometry": "the odometry must cover the images' time and move",
    "camera_height": "no floor was seen in any chunk",
    "known_distance": "the frame scale.known_frame was not mapped",
    "depth": "no depth image lies within 20 ms of an image",
    "imu": "its readings do not cover the images' time",
    "gnss": "there are too few fixes, or they cover too short a way",
}


def remarks(mapper: Mapper, gate: FrameGate) -> list[Event]:
    """Of a run that is over."""
    return [*_missing_scale(mapper), *_absurd_scale(mapper), *_gaps(mapper, gate), *_stamps(gate)]


def _missing_scale(mapper: Mapper) -> Iterator[Event]:
    """A source of scale that was asked for and gave no metres must not pass in silence."""
    wanted, scale = mapper.config.scale, mapper.scale
    if not wanted.sources or scale.frozen or not mapper.trajectory():
        return
    refusals = mapper.live_map.scale_and_level.scale.refusals
    hints = [refusals.get(name) or _SCALE_HINTS[name] for name in wanted.sources]
    why = f"could not measure the scale: {'; '.join(hints)}"
    if scale.known:
        why = (
            f"measured {scale.value:.4g} m per unit +- {np.sqrt(scale.variance):.2g}, which is not "
            f"good enough; map more of the recording, or raise scale.max_relative_sigma"
        )
    yield Event(
        "scale_unknown", f"the map has no metres: scale.source {' and '.join(wanted.sources)} {why}"
    )


def _absurd_scale(mapper: Mapper) -> Iterator[Event]:
    """Metres that contradict common sense are most often another unit."""
    parts = connected_parts(mapper.live_map) if mapper.scale.frozen else []
    near = nearest_surface(parts[0]) if parts else None
    if near is None or _NEAR[0] <= near <= _NEAR[1]:
        return
    wanted = mapper.config.scale.source
    yield Event(
        "scale_suspicious",
        f"by scale.source {wanted} the camera is {near:.3g} m from the nearest surface, which can "
        f"hardly be; check the unit of what was measured"
        f"{' (--depth-unit)' if wanted == 'depth' else ''}",
    )


def _gaps(mapper: Mapper, gate: FrameGate) -> Iterator[Event]:
    """Photos at long intervals are no failure of features, but a setting."""
    gaps, kept = gate.counts["gap"], gate.counts["kept"]
    if gaps * 2 < kept or kept < 3:
        return
    yield Event(
        "gaps",
        f"{gaps} of {kept} images come more than gate.max_gap ({mapper.config.gate.max_gap:g} s) "
        f"after the one before, so that each starts a part of its own; if their views overlap, "
        f"raise it, or 0 for no limit: --set gate.max_gap=0",
    )


def _stamps(gate: FrameGate) -> Iterator[Event]:
    for reason, text in _BAD_STAMPS.items():
        if count := gate.counts[reason]:
            yield Event(reason, f"{count} images were left out: each {text}; check the recording")
