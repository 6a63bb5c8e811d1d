"""How one more chunk joins the map.

A chunk is aligned with the previous one of its chain on their shared frames and becomes a node of
the pose graph. Frames that the next chunk may still take over are provisional and stay out of the
fused points. A chunk that cannot be aligned starts a part of its own, tied to the rest by a later
loop only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from scal3r_ros.mapping import gauge
from scal3r_ros.mapping.alignment import Alignment, least_covariance
from scal3r_ros.mapping.camera import valid_pixels
from scal3r_ros.mapping.chunking import split_overlap
from scal3r_ros.mapping.odometry_bridge import bridge_by_odometry
from scal3r_ros.mapping.pose_blend import place_weight
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.map_change import FusedPoints, MapChange, OpenChunk, merged
from scal3r_ros.records import ChunkPrediction, ChunkSummary, Event
from scal3r_ros.rigid import inverse


def join(live_map: LiveMap, summary: ChunkSummary, prediction: ChunkPrediction) -> MapChange:
    """Add the next chunk of the stream."""
    previous, alignment = live_map.open, _align(live_map, summary, prediction)
    if previous is not None and alignment is not None and alignment.accepted:
        events = _attach(live_map, previous.summary.index, summary, alignment)
        before = _hand_over(live_map, previous, summary, prediction)
    else:
        before = close(live_map)
        events = _start_part(live_map, summary, prediction, alignment)
    own = _take(live_map, summary, prediction, alignment)
    events += live_map.scale_and_level.missed_mount(summary)
    events += _observe_scale(live_map, summary, prediction)
    return merged(before, own, MapChange(events=tuple(events)))


def confirm(live_map: LiveMap) -> MapChange:
    """The provisional frames of the open chunk are its own, whatever follows."""
    if live_map.open is None:
        return MapChange()
    joined = _settle(live_map, live_map.open.prediction, live_map.open.waiting)
    live_map.trajectory.confirm(live_map.open.waiting)
    live_map.open = replace(live_map.open, waiting=())
    return joined


def close(live_map: LiveMap) -> MapChange:
    """Confirm, and let no further chunk join the open one."""
    joined = confirm(live_map)
    live_map.open = None
    return joined


def _align(
    live_map: LiveMap, summary: ChunkSummary, prediction: ChunkPrediction
) -> Alignment | None:
    """S_previous_chunk; None if no chunk of the chain precedes this one."""
    previous = live_map.open
    if previous is None or not summary.overlap_ids:
        return None
    alignment = gauge.join(previous.prediction, prediction, live_map.config.alignment)
    if alignment.accepted:
        return alignment
    outside = live_map.scale_and_level
    odometry = outside.odometry(previous.summary) | outside.odometry(summary)
    bridge = bridge_by_odometry(previous.prediction, prediction, odometry)
    return replace(bridge, attempts=alignment.attempts) if bridge.accepted else alignment


def _attach(
    live_map: LiveMap, previous: int, summary: ChunkSummary, alignment: Alignment
) -> list[Event]:
    S = alignment.S_previous_current
    live_map.graph.add_node(summary.index, live_map.graph.nodes[previous] @ S)
    kind = "odometry" if alignment.weak else "sequence"
    live_map.graph.add_edge(previous, summary.index, S, kind, alignment.sigma)
    if alignment.contradiction:
        text = (
            f"chunk {summary.index} is joined as its network says ({alignment.method}): "
            f"{alignment.contradiction}"
        )
        return [Event("gauge_disagrees", text, summary.index)]
    if not alignment.attempts:
        return []
    tried = "; ".join(alignment.attempts)
    text = f"chunk {summary.index} is joined by {alignment.method} ({tried})"
    return [Event("alignment_fallback", text, summary.index)]


def _start_part(
    live_map: LiveMap, summary: ChunkSummary, prediction: ChunkPrediction, refused: Alignment | None
) -> list[Event]:
    events: list[Event] = []
    if not len(live_map.graph.nodes):
        S_map_chunk, events = live_map.scale_and_level.level(summary, prediction)
    else:
        live_map.part += 1
        S_map_chunk = _continue_from_last(live_map, prediction)
        why = "no shared frames"
        if refused is not None:
            why = "; ".join(refused.attempts) or refused.failure
            events.append(Event("alignment_failed", f"chunk {summary.index}: {why}", summary.index))
        text = f"chunk {summary.index} starts part {live_map.part} of the map, unconnected: {why}"
        events.append(Event("new_part", text, summary.index))
    live_map.graph.add_node(summary.index, S_map_chunk)
    return events


def _continue_from_last(live_map: LiveMap, prediction: ChunkPrediction) -> Sim3:
    """A provisional place, at the scale of the last chunk: its last frame is the same in both,
    or where this chunk begins if they share none."""
    last = live_map.trajectory.frame_ids[-1]
    T_map_last = live_map.trajectory.matrices(live_map.graph.nodes, [last])[0]
    S_last = live_map.graph.nodes[live_map.trajectory.chunk_of(last)]
    unit = Sim3(S_last.scale, np.eye(3), np.zeros(3))
    met = prediction.frame_ids.index(last) if last in prediction.frame_ids else 0
    T_met_chunk = inverse(prediction.T_chunk_camera[met])
    return Sim3.from_pose(T_map_last) @ unit @ Sim3.from_pose(T_met_chunk)


def _hand_over(
    live_map: LiveMap, previous: OpenChunk, summary: ChunkSummary, prediction: ChunkPrediction
) -> MapChange:
    """The previous chunk keeps its half of the shared frames, or none where the memory makes
    the later chunk know more."""
    later_knows_more = prediction.gauge != "free"
    half, _ = split_overlap(
        summary.overlap_ids,
        previous.prediction.frame_ids,
        prediction.frame_ids,
        0 if later_knows_more else None,
    )
    waiting = set(previous.waiting)
    kept = tuple(i for i in half if i in waiting)
    live_map.trajectory.confirm(kept)
    live_map.open = replace(previous, waiting=tuple(sorted(waiting - set(kept))))
    return _settle(live_map, previous.prediction, kept)


def _take(
    live_map: LiveMap,
    summary: ChunkSummary,
    prediction: ChunkPrediction,
    alignment: Alignment | None,
) -> MapChange:
    """Poses of the frames that nobody else owns; the last ones are provisional."""
    if alignment is not None and alignment.accepted:
        covariance = alignment.covariance
    else:
        covariance = least_covariance(prediction)
    taken_over = set(live_map.open.waiting) if live_map.open else set()
    ids = prediction.frame_ids
    free = tuple(i for i in ids if i not in live_map.trajectory or i in taken_over)
    last = summary.frame_ids[-live_map.config.chunk.overlap :]
    waiting = set(last) & set(free)
    for i in free:
        row = ids.index(i)
        live_map.trajectory.put(
            i,
            summary.stamps_ns[summary.frame_ids.index(i)],
            summary.index,
            prediction.T_chunk_camera[row],
            _confidence(prediction, row),
            i in waiting,
            covariance,
        )
    blends = live_map.config.map.blend_poses and prediction.gauge == "free"
    if blends:
        _see(live_map, summary, prediction)
    live_map.open = OpenChunk(summary, prediction.of_frames(last), tuple(sorted(waiting)))
    own = _settle(live_map, prediction, tuple(i for i in free if i not in waiting))
    joined = alignment is not None and alignment.accepted
    return replace(own, frame_ids=ids if blends and joined else free)


def _see(live_map: LiveMap, summary: ChunkSummary, prediction: ChunkPrediction) -> None:
    """The chunk's poses of all frames that it shares with chunks it is tied to, or owns."""
    parts = live_map.graph.components()
    for row, frame_id in enumerate(prediction.frame_ids):
        if parts[live_map.trajectory.chunk_of(frame_id)] == parts[summary.index]:
            weight = place_weight(summary.frame_ids.index(frame_id), len(summary.frame_ids))
            live_map.trajectory.see(frame_id, summary.index, prediction.T_chunk_camera[row], weight)


def _observe_scale(
    live_map: LiveMap, summary: ChunkSummary, prediction: ChunkPrediction
) -> list[Event]:
    """Only in the first part: how long a map unit is in another one is unknown."""
    outside, parts = live_map.scale_and_level, live_map.graph.components()
    if parts[summary.index] != next(iter(live_map.graph.nodes)):
        return []
    outside.fixes.meet(summary, prediction)
    if not outside.wanted:
        return []
    outside.observe(summary, prediction, live_map.graph.nodes[summary.index])
    outside.compare_fixes(live_map.graph.nodes)
    outside.scale.count_chunk()
    last = outside.known_frame
    if last is not None and last in live_map.trajectory:
        first = live_map.trajectory.frame_ids[0]
        outside.scale.observe_path(live_map.path_length(first, last))
    return outside.contradictions(summary.index)


def _settle(live_map: LiveMap, prediction: ChunkPrediction, frame_ids: Iterable[int]) -> MapChange:
    """Fuse the points of frames whose owner is final."""
    ids = tuple(frame_ids)
    S_map_chunk = live_map.graph.nodes[prediction.chunk_index]
    cloud = live_map.points.integrate(prediction, ids, S_map_chunk, live_map.part)
    live_map.quality.observe(prediction, ids, live_map.config.map)
    live_map.floor.note(prediction, ids)
    fused = FusedPoints(prediction.chunk_index, S_map_chunk, cloud)
    return MapChange(ids, ((prediction, ids),), (fused,)) if ids else MapChange()


def _confidence(prediction: ChunkPrediction, row: int) -> float:
    """Mean confidence of a frame's valid pixels; 0 if there are none."""
    valid = valid_pixels(prediction.depth[row], prediction.confidence[row])
    return float(prediction.confidence[row][valid].mean()) if valid.any() else 0.0
