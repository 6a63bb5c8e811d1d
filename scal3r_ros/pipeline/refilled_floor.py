"""The grid of a saved map, made again from the depth that was kept for closing loops."""

from __future__ import annotations

from scal3r_ros.config import GridConfig
from scal3r_ros.pipeline.floor_grid import FloorGrid
from scal3r_ros.pipeline.mapping_state import MappingState


def refilled_floor(state: MappingState, config: GridConfig) -> FloorGrid:
    """Everything that the records of a map tell about its floor; nothing is changed."""
    live_map, records = state.live_map, state.loops.records
    owned: dict[int, list[int]] = {}
    for frame_id in live_map.trajectory.frame_ids:
        owned.setdefault(live_map.trajectory.chunk_of(frame_id), []).append(frame_id)
    floor = FloorGrid(config, live_map.config.map)
    for chunk, frame_ids in owned.items():
        if chunk in records:
            kept = [i for i in frame_ids if i in records.frame_ids(chunk)]
            floor.note(records.prediction(chunk, kept), kept)
            live_map.take_floor(floor)
    return floor
