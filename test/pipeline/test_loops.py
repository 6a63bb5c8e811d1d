"""Loops in the mapper: what a device cannot hold, what fails late, and everything once more."""

from dataclasses import replace

import numpy as np
import pytest
from mapper_runs import config, run
from oracle import REALISTIC, OracleReconstructor

from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory

LOOPS = {
    "loop__enabled": True,
    "loop__min_gap": 20,
    "loop__window": 8,
    "loop__nms_window": 4,
    "loop__threshold": 0.8,
}


@pytest.fixture(scope="module")
def twice(street):
    """A stretch of 40 frames that is driven twice."""
    stretch = street.T_world_camera[:40]
    return replace(street, T_world_camera=np.concatenate([stretch, stretch]))


def names(updates):
    return [event.name for update in updates for event in update.events]


class CrampedForLoops(OracleReconstructor):
    """A device that holds at most `room` frames of a loop chunk."""

    room = 8

    def reconstruct(self, chunk, contribute=True):
        if chunk.kind == "loop" and len(chunk.frames) > self.room:
            raise OutOfDeviceMemory(f"{len(chunk.frames)} frames do not fit")
        return super().reconstruct(chunk, contribute)


def test_a_loop_chunk_too_large_for_the_device_is_tried_with_half_of_its_frames(twice):
    mapper = Mapper(config(**LOOPS), CrampedForLoops(twice, REALISTIC))
    updates = run(twice, mapper)
    assert "loop_closed" in names(updates)
    assert len(mapper.trajectory()) == len(twice)


def test_a_loop_that_does_not_fit_at_all_is_rejected_with_the_reason(twice):
    reconstructor = CrampedForLoops(twice, REALISTIC)
    reconstructor.room = 4
    mapper = Mapper(config(**LOOPS), reconstructor)
    updates = run(twice, mapper)
    rejected = [e for u in updates for e in u.events if e.name == "loop_rejected"]
    assert rejected and all("8 frames do not fit" in event.message for event in rejected)
    assert "loop_closed" not in names(updates)
    assert sorted({p.frame_id for u in updates for p in u.poses}) == list(range(len(twice)))


@pytest.mark.parametrize("contributes", [False, True])
def test_loop_chunks_are_absorbed_only_if_asked_for(twice, contributes):
    class Noting(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            absorbed.append((chunk.kind, contribute))
            return super().reconstruct(chunk, contribute)

    absorbed: list[tuple[str, bool]] = []
    run(twice, Mapper(config(**LOOPS, memory__loop_contributes=contributes), Noting(twice)))
    assert {asked for kind, asked in absorbed if kind == "loop"} == {contributes}
    assert {asked for kind, asked in absorbed if kind != "loop"} == {True}


class FailsAtLoops(OracleReconstructor):
    """Something unforeseen, once."""

    failed = False

    def reconstruct(self, chunk, contribute=True):
        if chunk.kind == "loop" and not self.failed:
            self.failed = True
            raise RuntimeError("unforeseen")
        return super().reconstruct(chunk, contribute)


def test_a_failure_after_a_chunk_was_mapped_does_not_hide_the_chunk(twice):
    mapper = Mapper(config(**LOOPS), FailsAtLoops(twice, REALISTIC))
    updates, failures = [], 0
    for i in range(len(twice)):
        try:
            updates += mapper.add(twice.frame(i))
        except RuntimeError:
            failures += 1
            late = mapper.take_updates()
            assert late and late[-1].poses and len(late[-1].points)
            updates += late
    updates += mapper.flush()
    assert failures == 1 and mapper.take_updates() == []
    assert sorted({p.frame_id for u in updates for p in u.poses}) == list(range(len(twice)))


class OneOfTheRoundIsWrong(OracleReconstructor):
    """Says of the second chunk that it shows frames that it was not given."""

    round_size = 3

    def reconstruct_round(self, chunks):
        results = super().reconstruct_round(chunks)
        return [
            replace(r, frame_ids=tuple(i + 1000 for i in r.frame_ids)) if r.chunk_index == 1 else r
            for r in results
        ]


def test_a_chunk_that_cannot_be_integrated_does_not_take_the_rest_of_its_round_along(street):
    mapper = Mapper(config(), OneOfTheRoundIsWrong(street))
    updates = []
    for i in range(32):
        try:
            updates += mapper.add(street.frame(i))
        except ValueError:
            updates += mapper.take_updates()
    assert [update.chunk_index for update in updates] == [0, 2]
    assert {pose.frame_id for pose in mapper.trajectory()} >= {*range(16), *range(16, 32)}


class Repeating(OracleReconstructor):
    """Predicts in the second pass what it predicted in the first."""

    def __init__(self, city):
        super().__init__(city, replace(REALISTIC, scale_bias=0.04))
        self.seen = []

    def reconstruct(self, chunk, contribute=True):
        prediction = super().reconstruct(chunk, contribute)
        self.seen.append(prediction)
        return prediction

    def finalize(self):
        return list(self.seen)


def loops_of(mapper):
    return sorted(edge[:2] for edge in mapper.graph().edges if edge[2] == "loop")


def test_the_same_predictions_once_more_give_the_same_map(twice):
    """Loops that contradict the map wait for one another, in the second pass as in the first."""
    changes = {"loop__max_scale_change": 1.002, "memory__mode": "finalize"}
    mapper = Mapper(config(**LOOPS, **changes), Repeating(twice))
    updates = run(twice, mapper)
    closed, before = loops_of(mapper), mapper.trajectory()
    assert len(closed) >= 3
    assert any("scale_change" in e.message for u in updates for e in u.events)
    (update,) = mapper.finalize()
    assert loops_of(mapper) == closed
    assert not update.events
    length = max(np.linalg.norm(pose.T_map_camera[:3, 3]) for pose in before)
    for ours, theirs in zip(mapper.trajectory(), before, strict=True):
        np.testing.assert_allclose(ours.T_map_camera, theirs.T_map_camera, atol=1e-3 * length)


def test_loops_whose_images_are_gone_are_rejected_by_name_in_the_second_pass(street, twice):
    further = np.concatenate([twice.T_world_camera, street.T_world_camera[40:56]])
    city = replace(street, T_world_camera=further)
    changes = {"loop__max_megabytes": 0.75, "memory__mode": "finalize"}
    mapper = Mapper(config(**LOOPS, **changes), Repeating(city))
    run(city, mapper)
    closed = loops_of(mapper)
    (update,) = mapper.finalize()
    lost = [event.message for event in update.events if event.name == "loop_rejected"]
    assert len(closed) > len(loops_of(mapper)) == len(closed) - len(lost)
    assert all("raise" in message and "loop.max_megabytes" in message for message in lost)


@pytest.mark.parametrize("megabytes", [100.0, 0.01], ids=["recorded", "dropped"])
def test_the_search_can_change_in_the_middle_of_a_map(twice, megabytes):
    mapper = Mapper(config(**LOOPS, loop__max_candidates=0), OracleReconstructor(twice))
    first = [update for i in range(60) for update in mapper.add(twice.frame(i))]
    assert "loop_closed" not in names(first)
    wanted = config(**LOOPS, loop__max_megabytes=megabytes).loop
    mapper.search_loops(wanted)
    updates = run(twice, mapper, range(60, len(twice)))
    closed = "loop_closed" in names(updates)
    assert closed == (megabytes > 1), "with places from before the change, if they are recorded"
    assert [p.frame_id for p in mapper.trajectory()] == list(range(len(twice)))
    mapper.search_loops(replace(wanted, enabled=False))
    mapper.reset()
    assert not {"loop_closed", "loop_rejected"} & set(names(run(twice, mapper)))


def test_places_without_a_common_surface_are_tried_beside_and_then_refused(twice):
    class CountsLoops(OracleReconstructor):
        tried = 0

        def reconstruct(self, chunk, contribute=True):
            self.tried += chunk.kind == "loop"
            return super().reconstruct(chunk, contribute)

    tried = []
    for search in (0, 2):
        oracle = CountsLoops(twice, REALISTIC)
        settings = config(**LOOPS, loop__min_overlap=1.0, loop__anchor_search=search)
        updates = run(twice, Mapper(settings, oracle))
        refused = [e.message for u in updates for e in u.events if e.name == "loop_rejected"]
        assert "loop_closed" not in names(updates)
        assert refused and all("no_overlap" in message for message in refused)
        assert len(refused) == oracle.tried
        tried.append(oracle.tried)
    assert tried[0] < tried[1] <= 3 * tried[0]
