"""Loops: the past is searched, neighbours and repetitions are suppressed, geometry decides."""

from dataclasses import replace

import numpy as np
import pytest
from clouds import prediction, seen_from
from oracle import OracleReconstructor, Spoil, drive

from scal3r_ros.config import AlignmentConfig, LoopConfig
from scal3r_ros.mapping.alignment import Alignment, align
from scal3r_ros.mapping.descriptor_store import DESCRIPTOR_WIDTH
from scal3r_ros.mapping.joint_overlap import joint_overlap
from scal3r_ros.mapping.loop_closure import (
    LoopDetector,
    LoopVerifier,
    _directions,
    compacted,
    loop_window,
)
from scal3r_ros.mapping.loop_records import LoopRecords, NoRecord, reduce_prediction
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import Chunk, Frame

CONFIG = LoopConfig()


@pytest.fixture(scope="module")
def city():
    """Twice around one block: every place of the second lap was seen in the first."""
    return drive(frames=800, length=640.0, width=32, height=12, route="ENWSENWS")


def feed(detector: LoopDetector, descriptors: np.ndarray, step: int = 30) -> list:
    found = []
    for start in range(0, len(descriptors), step):
        ids = list(range(start, min(start + step, len(descriptors))))
        found.append(detector.add(ids, descriptors[ids]))
    return [candidate for batch in found for candidate in batch]


def test_every_candidate_is_an_earlier_visit_of_the_same_place(city):
    descriptors = OracleReconstructor(city).descriptors(np.arange(len(city)))
    found = feed(LoopDetector(CONFIG), descriptors)
    positions = city.T_world_camera[:, :3, 3]
    assert len(found) >= 10
    for candidate in found:
        assert candidate.match_id <= candidate.frame_id - CONFIG.min_gap
        assert candidate.similarity > CONFIG.threshold
        apart = positions[candidate.frame_id] - positions[candidate.match_id]
        assert np.linalg.norm(apart) < 12.0
    assert min(c.frame_id for c in found) < 450


def test_search_against_comparing_all_pairs(city):
    descriptors = OracleReconstructor(city).descriptors(np.arange(600))
    config = replace(CONFIG, answers=1, nms_window=0, max_candidates=1000)
    found = {c.frame_id: c for c in feed(LoopDetector(config), descriptors, step=1)}
    assert len(found) > 100
    for i in range(config.min_gap, 600):
        centred = descriptors[: i + 1] - descriptors[:i].mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        similarity = (centred[: i - config.min_gap + 1] @ centred[i]).max()
        if abs(similarity - config.threshold) > 5e-3:
            assert (i in found) == (similarity > config.threshold)
        if i in found:
            assert found[i].similarity == pytest.approx(similarity, abs=5e-3)


def test_what_all_frames_share_makes_no_loops(city):
    """Pooled tokens of one session have cosines near one, whatever the place."""
    own = OracleReconstructor(city).descriptors(np.arange(len(city)))
    shared = np.concatenate([own, np.full((len(city), 1), 5.0, np.float32)], axis=1)
    shared /= np.linalg.norm(shared, axis=1, keepdims=True)
    assert (shared[:100] @ shared[100:300].T).min() > 0.9
    expected = [(c.frame_id, c.match_id) for c in feed(LoopDetector(CONFIG), own)]
    found = [(c.frame_id, c.match_id) for c in feed(LoopDetector(CONFIG), shared)]
    assert len(expected) >= 10
    assert np.mean([pair in expected for pair in found]) > 0.8
    positions = city.T_world_camera[:, :3, 3]
    assert all(np.linalg.norm(positions[i] - positions[j]) < 12.0 for i, j in found)


def test_no_two_candidates_are_repetitions_of_each_other(city):
    descriptors = OracleReconstructor(city).descriptors(np.arange(len(city)))
    found = feed(LoopDetector(replace(CONFIG, max_candidates=100)), descriptors)
    for k, first in enumerate(found):
        for second in found[:k]:
            near = abs(first.frame_id - second.frame_id) <= CONFIG.nms_window
            assert not (near and abs(first.match_id - second.match_id) <= CONFIG.nms_window)


def test_load_is_bounded_and_can_be_switched_off(city):
    descriptors = OracleReconstructor(city).descriptors(np.arange(len(city)))
    detector = LoopDetector(replace(CONFIG, max_candidates=1))
    for start in range(0, 780, 30):
        ids = range(start, start + 30)
        assert len(detector.add(ids, descriptors[list(ids)])) <= 1
    assert feed(LoopDetector(replace(CONFIG, enabled=False)), descriptors) == []


def test_long_descriptors_are_projected_and_keep_their_likeness():
    random = np.random.default_rng(0)
    places = random.standard_normal((300, 8448)).astype(np.float32)
    again = places[:30] + 0.3 * random.standard_normal((30, 8448)).astype(np.float32)
    everything = np.concatenate([places, again])
    everything /= np.linalg.norm(everything, axis=1, keepdims=True)
    detector = LoopDetector(replace(CONFIG, nms_window=0, max_candidates=100))
    found = feed(detector, everything)
    assert {(c.frame_id, c.match_id) for c in found} == {(300 + i, i) for i in range(30)}
    assert detector.state()["descriptors"].nbytes == 330 * 512 * 2


def test_saved_detector_goes_on_alike(city):
    descriptors = OracleReconstructor(city).descriptors(np.arange(len(city)))
    whole = feed(LoopDetector(CONFIG), descriptors)
    first = LoopDetector(CONFIG)
    found = feed(first, descriptors[:600])
    second = LoopDetector.restore(CONFIG, first.state())
    for start in range(600, 800, 30):
        ids = list(range(start, min(start + 30, 800)))
        found += second.add(ids, descriptors[ids])
    assert found == whole


def test_windows_stay_inside_the_chunk():
    ids = range(100, 160)
    assert loop_window(130, ids, 20) == tuple(range(120, 140))
    assert loop_window(102, ids, 20) == tuple(range(100, 120))
    assert loop_window(158, ids, 20) == tuple(range(140, 160))
    assert loop_window(5, range(8), 20) == tuple(range(8))


def tie(S_a_b: Sim3, accepted: bool = True) -> tuple[Alignment, Alignment]:
    """Alignments S_a_q, S_b_q of a loop chunk q that imply S_a_b."""
    S_b_q = Sim3.exp(np.r_[0.3, -0.2, 1.0, 0.1, 0.2, 0, 0.4])
    sigma = np.array([0.02, 0.01, 0.01])
    ends = (S_a_b @ S_b_q, S_b_q)
    return tuple(Alignment(S, accepted, "depth", sigma=sigma) for S in ends)


def judge(verifier: LoopVerifier, moved: np.ndarray, path: float, ends=(3, 9)):
    """The graph has b at identity; the loop says that it is `moved` from there."""
    S_map_a = Sim3.exp(np.r_[5.0, 1, 0, 0, 0, 0.4, 0.1])
    S_a_b = S_map_a.inverse() @ Sim3.exp(moved)
    return verifier.verify(ends, tie(S_a_b), (S_map_a, Sim3.identity()), path, 1.0)


@pytest.mark.parametrize(
    ("moved", "path", "reason"),
    [
        (np.r_[3.0, 2, 0, 0, 0, 0.1, 0.1], 100.0, "consistent"),
        (np.r_[30.0, 2, 0, 0, 0, 0.1, 0.1], 100.0, "drift"),
        (np.r_[30.0, 2, 0, 0, 0, 0.1, 0.1], 400.0, "consistent"),
        (np.r_[1.0, 0, 0, 0, 0, 0, 0.6], 400.0, "scale_change"),
        (np.r_[1.0, 0, 0, 0, 0, 2.0, 0], 400.0, "rotation"),
    ],
)
def test_implied_corrections_are_judged_by_the_path(moved, path, reason):
    verdict = judge(LoopVerifier(CONFIG), moved, path)[-1]
    assert verdict.reason == reason
    assert verdict.accepted == (reason == "consistent")


def test_the_implied_transform_is_the_one_between_the_chunks():
    S_a_b = Sim3.exp(np.r_[1.0, 2, 3, 0.3, 0.2, 0.1, 0.2])
    verdict = LoopVerifier(CONFIG).verify((0, 1), tie(S_a_b), (Sim3.identity(), S_a_b), 10.0, 1.0)[
        0
    ]
    np.testing.assert_allclose(verdict.S_a_b.matrix(), S_a_b.matrix(), atol=1e-12)
    assert (verdict.a, verdict.b) == (0, 1)


def test_a_failed_alignment_proves_nothing():
    nodes = (Sim3.identity(), Sim3.identity())
    alignments = tie(Sim3.identity(), accepted=False)
    verdict = LoopVerifier(CONFIG).verify((0, 1), alignments, nodes, 10.0, 1.0)[0]
    assert not verdict.accepted
    assert verdict.reason == "alignment_failed"


def test_a_second_loop_confirms_a_large_correction():
    verifier, moved = LoopVerifier(CONFIG), np.r_[30.0, 2, 0, 0, 0, 0.1, 0.1]
    assert judge(verifier, moved, 100.0)[-1].reason == "drift"
    other = judge(verifier, np.r_[-30.0, 9, 0, 0, 0, 0.1, 0.1], 100.0, ends=(2, 8))
    assert [v.accepted for v in other] == [False]
    confirmed = judge(verifier, moved * 1.02, 100.0, ends=(4, 10))
    assert [(v.accepted, v.reason) for v in confirmed] == [(True, "confirmed")] * 2
    assert [(v.a, v.b) for v in confirmed] == [(3, 9), (4, 10)]


def test_a_correction_that_waits_follows_the_map_into_metres():
    """The map is multiplied by ten between two loops that imply the same."""
    S_new_old = Sim3(np.array(10.0), np.eye(3), np.zeros(3))
    S_map_a, moved = Sim3.exp(np.r_[5.0, 1, 0, 0, 0, 0.4, 0.1]), np.r_[30.0, 2, 0, 0, 0, 0.1, 0.1]
    verifier = LoopVerifier(CONFIG)
    assert judge(verifier, moved, 100.0)[-1].reason == "drift"
    nodes = (S_new_old @ S_map_a, S_new_old)
    verifier.follow(dict(zip((3, 9), nodes)))
    alignments = tie(S_map_a.inverse() @ Sim3.exp(1.02 * moved))
    found = verifier.verify((4, 10), alignments, nodes, 1000.0, 10.0)
    assert [(v.accepted, v.reason) for v in found] == [(True, "confirmed")] * 2


def test_a_correction_that_waits_is_that_of_the_map_as_it_is_now():
    """Another loop has already corrected most of it: what is left is confirmed, not the whole."""
    S_map_a, moved = Sim3.exp(np.r_[5.0, 1, 0, 0, 0, 0.4, 0.1]), np.r_[60.0, 2, 0, 0, 0, 0, 0]
    verifier = LoopVerifier(CONFIG)
    assert judge(verifier, moved, 100.0)[-1].reason == "drift"
    half = Sim3.exp(0.5 * moved)
    verifier.follow({3: S_map_a, 9: half})
    alignments = tie(S_map_a.inverse() @ Sim3.exp(moved))
    found = verifier.verify((4, 10), alignments, (S_map_a, half), 100.0, 1.0)
    assert [(v.accepted, v.reason) for v in found] == [(True, "confirmed")] * 2


def frames_of(side) -> dict[int, Frame]:
    return {
        frame_id: Frame(frame_id, 10 * frame_id, rgb)
        for frame_id, rgb in zip(side.frame_ids, side.rgb)
    }


def test_records_align_a_loop_chunk_as_the_full_prediction_does(tmp_path):
    truth = Sim3.exp(np.r_[1.0, -2, 0.5, 0.3, -0.2, 0.5, 0.1])
    old = prediction(3, frames=20, shape=(48, 128))
    again = seen_from(truth, old, index=9)
    records = LoopRecords(tmp_path)
    records.put(old, frames_of(old))
    window = loop_window(10, records.frame_ids(3), 8)
    found = align(
        records.prediction(3, window), reduce_prediction(again, window), AlignmentConfig()
    )
    assert found.accepted
    assert np.abs((truth.inverse() @ found.S_previous_current).log()).max() < 2e-3


def test_records_outlive_the_process_and_keep_images(tmp_path):
    rows, columns = np.mgrid[:48, :128]
    smooth = np.stack([2 * columns, 5 * rows, rows + columns], axis=2).astype(np.uint8)
    side = prediction(3, frames=4, shape=(48, 128))
    frames = {i: Frame(i, 7 * i, smooth, np.eye(3) * (i + 1)) for i in side.frame_ids}
    LoopRecords(tmp_path).put(side, frames)
    records = LoopRecords(tmp_path)
    assert 3 in records
    back = records.frames(3, [1, 3])
    assert [f.id for f in back] == [1, 3]
    assert [f.stamp_ns for f in back] == [7, 21]
    assert np.abs(back[0].rgb.astype(int) - smooth).mean() < 3
    np.testing.assert_array_equal(back[1].intrinsics, np.eye(3) * 4)


def test_oldest_records_go_first_and_say_so(tmp_path):
    side = prediction(0, frames=4, shape=(48, 128))
    records = LoopRecords(tmp_path, max_megabytes=0.2)
    for k in range(12):
        records.put(replace(side, chunk_index=k), frames_of(side))
        assert records.nbytes <= 0.2e6
    assert 0 not in records
    assert 11 in records
    with pytest.raises(NoRecord, match="no record of chunk 0"):
        records.prediction(0, [0])


def test_look_alike_places_hallucinate_a_loop_that_geometry_rejects(city):
    spoil = Spoil(aliases=((50, 250),))
    oracle = OracleReconstructor(city, spoil)
    found = feed(LoopDetector(CONFIG), oracle.descriptors(np.arange(300)))
    assert any(abs(c.match_id - 50) < 15 and abs(c.frame_id - 250) < 15 for c in found)


def test_directions_of_the_projection_are_drawn_once():
    directions = _directions(2048)
    assert _directions(2048) is directions and not directions.flags.writeable
    vectors = np.random.default_rng(0).standard_normal((40, 2048)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = compacted(vectors)
    np.testing.assert_allclose(
        kept @ kept.T, vectors @ vectors.T, atol=5 / np.sqrt(DESCRIPTOR_WIDTH)
    )


@pytest.mark.parametrize(
    ("config", "moved"),
    [
        (LoopConfig(max_drift=0.2), np.r_[15.0, 2, 0, 0, 0, 0.1, 0.1]),
        (LoopConfig(max_scale_change=2.0), np.r_[1.0, 0, 0, 0, 0, 0, 0.6]),
    ],
)
def test_what_a_loop_may_imply_is_an_option(config, moved):
    assert not judge(LoopVerifier(CONFIG), moved, 100.0)[-1].accepted
    assert judge(LoopVerifier(config), moved, 100.0)[-1].reason == "consistent"


def test_a_frame_may_look_like_several_places():
    """Of two places that look alike the better one need not be the right one."""
    random = np.random.default_rng(0)
    places = random.standard_normal((300, 64)).astype(np.float32)
    places[100] = places[10] + 0.1 * random.standard_normal(64)  # two that look alike
    places[101] = places[100]  # the same place, not another answer
    query = (places[10] + 0.05 * random.standard_normal(64))[None].astype(np.float32)
    everything = np.concatenate([places, query])
    everything /= np.linalg.norm(everything, axis=1, keepdims=True)
    found = {}
    for answers in (1, 2, 3):
        config = replace(CONFIG, answers=answers, nms_window=5, max_candidates=100)
        newest = [c for c in feed(LoopDetector(config), everything) if c.frame_id == 300]
        found[answers] = [c.match_id for c in newest]
    assert found[1] == [10]
    assert found[2] == found[3] == [10, 100] or found[2] == found[3] == [10, 101]


def test_a_correction_that_this_runs_edges_exclude_is_improbable():
    verifier, moved = LoopVerifier(CONFIG), np.r_[3.0, 0.5, 0, 0, 0, 0.02, 0.02]
    S_map_a = Sim3.exp(np.r_[5.0, 1, 0, 0, 0, 0.4, 0.1])
    nodes = (S_map_a, Sim3.identity())
    alignments = tie(S_map_a.inverse() @ Sim3.exp(moved))

    def verdict(sigma: float):
        known = np.diag(np.r_[[sigma**2] * 3, [1e-3] * 4])
        return verifier.verify((3, 9), alignments, nodes, 100.0, 1.0, known)[-1]

    assert verdict(0.01).reason == "improbable"
    bold = LoopVerifier(LoopConfig(max_sigmas=1e6))
    known = np.diag(np.r_[[1e-4] * 3, [1e-3] * 4])
    found = bold.verify((3, 9), alignments, nodes, 100.0, 1.0, known)
    assert found[-1].reason == "consistent"
    assert verdict(0.5).reason == "consistent"


def test_where_other_places_are_as_near_a_second_loop_must_agree():
    verifier, moved = LoopVerifier(CONFIG), np.r_[3.0, 0.5, 0, 0, 0, 0.02, 0.02]
    S_map_a = Sim3.exp(np.r_[5.0, 1, 0, 0, 0, 0.4, 0.1])
    nodes, known = (S_map_a, Sim3.identity()), np.diag(np.r_[[25.0] * 3, [1e-3] * 4])
    first, second = (tie(S_map_a.inverse() @ Sim3.exp(f * moved)) for f in (1.0, 1.01))
    assert verifier.verify((3, 9), first, nodes, 100.0, 1.0, known)[-1].reason == "ambiguous"
    found = verifier.verify((4, 10), second, nodes, 100.0, 1.0, known)
    assert [(v.accepted, v.reason) for v in found] == [(True, "confirmed")] * 2


def test_places_put_beside_each_other_do_not_overlap(city):
    oracle = OracleReconstructor(city)
    ids = (*range(10, 20), *range(410, 420))
    frames = tuple(Frame(i, city.stamp_ns(i), np.zeros((2, 2, 3), np.uint8)) for i in ids)
    seen = oracle.reconstruct(Chunk(0, 0, frames, kind="loop"))
    again = oracle.reconstruct(Chunk(1, 0, frames[:10], kind="sequence"))
    sides = seen.of_frames(ids[:10]), seen.of_frames(ids[10:])
    assert joint_overlap(*sides) > 0.5
    away = sides[1].T_chunk_camera.copy()
    away[:, :3, 3] += 50.0
    assert joint_overlap(sides[0], replace(sides[1], T_chunk_camera=away)) == 0.0
    unknown = replace(again, depth=np.full_like(again.depth, np.nan))
    assert joint_overlap(again, unknown) == 0.0
