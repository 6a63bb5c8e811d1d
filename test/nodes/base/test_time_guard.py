"""Order of stamps: what comes out is increasing between jumps, and nothing vanishes uncounted."""

import random

import pytest

from scal3r_ros.nodes.base.node_config import TimeConfig
from scal3r_ros.nodes.base.time_guard import TimeGuard

MS = 1_000_000
START = 1_700_000_000_000_000_000


def feed(guard, stamps):
    released = [frame for stamp in stamps for frame in guard.push(stamp, stamp)]
    return released + guard.flush()


def regular(count, period=33 * MS, start=START):
    return [start + i * period for i in range(count)]


def test_orderly_stream_passes_unchanged():
    guard = TimeGuard(TimeConfig())
    stamps = regular(50)
    assert [frame.stamp_ns for frame in feed(guard, stamps)] == stamps
    assert not any(guard.counts.values())


def test_small_disorder_is_sorted():
    guard = TimeGuard(TimeConfig(reorder_window=0.15))
    stamps = regular(40)
    shuffled = stamps.copy()
    rng = random.Random(1)
    for i in range(0, 36, 4):
        block = shuffled[i : i + 4]
        rng.shuffle(block)
        shuffled[i : i + 4] = block
    assert shuffled != stamps
    assert [frame.stamp_ns for frame in feed(guard, shuffled)] == stamps
    assert guard.counts["reordered"] > 0 and guard.counts["late"] == 0


def test_duplicates_are_dropped_once_each():
    guard = TimeGuard(TimeConfig())
    stamps = regular(20)
    doubled = [stamp for stamp in stamps for _ in range(2)]
    assert [frame.stamp_ns for frame in feed(guard, doubled)] == stamps
    assert guard.counts["duplicate"] == 20


def test_frames_beyond_the_window_are_late():
    guard = TimeGuard(TimeConfig(reorder_window=0.05))
    stamps = regular(20)
    late = stamps.pop(5)
    out = feed(guard, [*stamps[:15], late, *stamps[15:]])
    assert [frame.stamp_ns for frame in out] == stamps
    assert guard.counts["late"] == 1


def test_bag_loop_is_one_jump_per_round():
    guard = TimeGuard(TimeConfig())
    lap = regular(60)
    out = feed(guard, lap * 3)
    assert [frame.stamp_ns for frame in out] == lap * 3
    assert [i for i, frame in enumerate(out) if frame.jumped_back] == [60, 120]
    assert guard.last_jump_ns == lap[-1] - lap[0]


def test_one_stray_old_frame_is_no_jump():
    guard = TimeGuard(TimeConfig())
    stamps = regular(30)
    out = feed(guard, [*stamps[:10], START - 10**12, *stamps[10:]])
    assert [frame.stamp_ns for frame in out] == stamps
    assert guard.counts["late"] == 1 and guard.counts["jump_back"] == 0


def test_clock_jump_needs_no_second_frame():
    guard = TimeGuard(TimeConfig())
    feed(guard, regular(10, start=START))
    guard.clock_jumped_back()
    out = guard.push(START - 10**10, "first")
    assert [frame.jumped_back for frame in out] == [True]
    assert guard.counts["jump_back"] == 1
    again = feed(guard, regular(5, start=START - 10**10 + MS))
    assert not any(frame.jumped_back for frame in again), "one jump must not count twice"


def test_ignore_frames_waits_until_stamps_caught_up():
    guard = TimeGuard(TimeConfig(on_jump_back="ignore_frames"))
    lap = regular(120)
    out = feed(guard, lap + lap + regular(10, start=lap[-1] + 33 * MS))
    assert [frame.stamp_ns for frame in out] == lap + regular(10, start=lap[-1] + 33 * MS)
    assert not any(frame.jumped_back for frame in out)
    assert guard.counts["ignored"] > 60


def test_unset_stamps_are_refused():
    guard = TimeGuard(TimeConfig())
    assert feed(guard, [0, 0, -5]) == []
    assert guard.counts["unstamped"] == 3


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_is_released_or_counted(seed):
    rng = random.Random(seed)
    guard = TimeGuard(TimeConfig(reorder_window=0.1))
    stamps, now = [], START
    for _ in range(500):
        now += rng.choice([33, 33, 33, 5000, -20, -300, 0, -60_000]) * MS
        stamps.append(now)
    out = feed(guard, stamps)
    lost = sum(guard.counts[name] for name in ("late", "duplicate", "ignored", "unstamped"))
    assert len(out) + lost == len(stamps)
    for before, after in zip(out, out[1:]):
        assert after.jumped_back or after.stamp_ns > before.stamp_ns


def test_what_is_a_jump_and_what_is_only_late_is_an_option():
    back = [*regular(20), *regular(5, start=START - 3_000 * MS)]
    jumped, late = TimeGuard(TimeConfig()), TimeGuard(TimeConfig(jump_threshold=5.0))
    feed(jumped, back)
    assert feed(late, back) == feed(TimeGuard(TimeConfig()), regular(20))
    assert (jumped.counts["jump_back"], jumped.counts["late"]) == (1, 0)
    assert (late.counts["jump_back"], late.counts["late"]) == (0, 5)
