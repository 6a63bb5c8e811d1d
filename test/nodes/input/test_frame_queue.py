"""Bounds, policies and bookkeeping of the queue before the worker."""

import random

import numpy as np
import pytest

from scal3r_ros.nodes.base.node_config import QueueConfig
from scal3r_ros.nodes.input.frame_queue import BLOCK_SLACK, FrameQueue, Ticket

FRAME_BYTES = 1000


def ticket(i, **flags):
    return Ticket(stamp_ns=i, message=None, nbytes=FRAME_BYTES, **flags)


def drain(queue):
    out = []
    while (item := queue.pop()) is not None:
        out.append(item)
    return out


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "thin"])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_and_every_frame_is_counted(policy, seed):
    config = QueueConfig(policy=policy, max_frames=20, max_megabytes=0.015)
    queue, rng = FrameQueue(config), random.Random(seed)
    put = popped = 0
    slack = BLOCK_SLACK if policy == "block" else 0
    for i in range(2000):
        if rng.random() < 0.6 and not (policy == "block" and queue.full):
            put += 1
            queue.put(ticket(i))
        elif queue.pop() is not None:
            popped += 1
        assert len(queue) <= config.max_frames + slack
        assert queue.nbytes <= 1e6 * config.max_megabytes
        assert queue.nbytes == len(queue) * FRAME_BYTES
    assert put == popped + len(queue) + queue.counts["dropped"]
    if policy == "block":
        assert queue.counts["dropped"] == 0
    else:
        assert queue.counts["dropped"] > 0


def test_drop_oldest_keeps_the_newest():
    queue = FrameQueue(QueueConfig(policy="drop_oldest", max_frames=10))
    for i in range(35):
        queue.put(ticket(i))
    assert [item.stamp_ns for item in drain(queue)] == list(range(25, 35))


def test_thin_covers_time_evenly():
    queue = FrameQueue(QueueConfig(policy="thin", max_frames=32))
    for i in range(400):
        queue.put(ticket(i))
    stamps = [item.stamp_ns for item in drain(queue)]
    steps = [b - a for a, b in zip(stamps, stamps[1:])]
    assert stamps[0] < 32 and stamps[-1] > 360
    assert max(steps) <= 4 * min(steps), f"uneven cover: {steps}"


@pytest.mark.parametrize(("policy", "most"), [("thin", 20), ("drop_oldest", 20), ("block", 100)])
def test_no_more_frames_wait_than_are_mapped_in_time(policy, most):
    queue = FrameQueue(QueueConfig(policy=policy, max_frames=100, max_delay=10.0), least=12)
    for i in range(100):
        queue.put(ticket(i))
    assert len(queue) == 100, "while nobody knows how long a frame takes"
    queue.seconds_per_frame = 0.5
    for i in range(100, 200):
        if policy != "block" or not queue.full:
            queue.put(ticket(i))
    assert len(queue) <= most
    queue.seconds_per_frame = 5.0
    for i in range(200, 300):
        if policy != "block" or not queue.full:
            queue.put(ticket(i))
    assert 6 <= len(queue) <= max(12, most if policy == "block" else 0), "a chunk's frames may"
    stamps = [item.stamp_ns for item in drain(queue)]
    if policy == "thin":
        assert np.ptp(stamps) > 0.5 * 300, "of all the time that has passed"


def test_thin_returns_to_full_rate_when_the_worker_catches_up():
    queue = FrameQueue(QueueConfig(policy="thin", max_frames=16))
    for i in range(200):
        queue.put(ticket(i))
    drain(queue)
    for i in range(200, 230):
        queue.put(ticket(i))
        queue.pop()
    kept_before = queue.counts["queued"]
    for i in range(230, 240):
        assert queue.put(ticket(i))
        queue.pop()
    assert queue.counts["queued"] == kept_before + 10


@pytest.mark.parametrize("policy", ["drop_oldest", "thin"])
@pytest.mark.parametrize("seed", range(20))
def test_announcements_survive_drops(policy, seed):
    """A session that begins with a dropped frame begins with the next one that is left."""
    rng = random.Random(seed)
    queue = FrameQueue(QueueConfig(policy=policy, max_frames=7))
    sessions, session, items = {}, 0, []
    for i in range(120):
        starts = rng.random() < 0.08
        session += starts
        sessions[i] = session
        queue.put(ticket(i, starts_session=starts, resets_map=starts))
        if rng.random() < 0.4:
            items.append(queue.pop())
    items = [item for item in items if item is not None] + drain(queue)
    assert queue.counts["dropped"] > 0
    for before, after in zip(items, items[1:]):
        crossed = sessions[before.stamp_ns] != sessions[after.stamp_ns]
        assert after.starts_session == crossed and after.resets_map == crossed


def test_clear_forgets_announcements():
    queue = FrameQueue(QueueConfig(policy="thin", max_frames=2))
    for i in range(9):
        queue.put(ticket(i, starts_session=True))
    queue.clear()
    queue.put(ticket(10))
    (item,) = drain(queue)
    assert not item.starts_session and queue.nbytes == 0
