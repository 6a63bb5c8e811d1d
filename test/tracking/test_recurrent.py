"""Laws of the recurrent tracker, with the networks of the fixtures under every rule."""

import numpy as np
import pytest
import torch
from mem3r_fixtures import cut3r, load, mem3r, scaled

from scal3r_ros.networks.mem3r.state_rules import RULES
from scal3r_ros.records import Frame
from scal3r_ros.tracking.block_chain import BlockChain, depth_ratio
from scal3r_ros.tracking.recurrent import RecurrentTracker


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(3)
    return [Frame(i, i, random.integers(0, 255, (30, 40, 3), dtype=np.uint8)) for i in range(7)]


def make(network, rule="ttt3r"):
    return RecurrentTracker(network, rule)


NETWORKS_AND_RULES = [(net, rule) for net in ("cut3r", "mem3r") for rule in RULES]


@pytest.fixture(params=NETWORKS_AND_RULES, ids=lambda kind: "-".join(kind))
def tracker(request, monkeypatch):
    network = {"cut3r": cut3r, "mem3r": mem3r}[request.param[0]]()
    return make(small(network), request.param[1])


def small(network):
    """The same network for images of 48 pixels."""
    object.__setattr__(network.architecture, "image_size", 48)
    return network


def same_told(a, b):
    return np.array_equal(a.T_block_camera, b.T_block_camera) and np.array_equal(a.points, b.points)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_restore_continues_bitwise(tracker, frames):
    for frame in frames[:3]:
        tracker.step(frame)
    other = RecurrentTracker(tracker._network, tracker._rule.name)
    other.restore(tracker.state())
    for frame in frames[3:]:
        assert same_told(tracker.step(frame), other.step(frame))
    assert same(tracker.state(), other.state())


def test_without_update_the_state_stays(tracker, frames):
    for frame in frames[:2]:
        before = tracker.state()
        peek = tracker.step(frame, update=False)
        assert same(before, tracker.state())
        assert same_told(peek, tracker.step(frame))


def test_reset_equals_a_new_tracker(tracker, frames):
    for frame in frames[:3]:
        tracker.step(frame)
    tracker.reset()
    assert same(tracker.state(), RecurrentTracker(tracker._network, tracker._rule.name).state())


def test_poses_are_rigid_and_a_block_begins_anew(tracker, frames):
    first = tracker.step(frames[0])
    tracker.step(frames[1])
    last, again = tracker.turn_over(frames[0])
    assert (last.block_id, again.block_id, again.frame_in_block) == (0, 1, 0)
    assert same_told(first, again)
    turn = last.T_block_camera[:3, :3]
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12) and np.linalg.det(turn) > 0
    assert 0.0 < last.update_strength <= 1.0


def test_the_state_stays_bounded(tracker, frames):
    sizes = set()
    for i in range(30):
        tracker.step(frames[i % len(frames)])
        sizes.add(sum(value.nbytes for value in tracker.state().values()))
        tokens = tracker.state()["state_tokens"]
        assert np.isfinite(tokens).all() and np.abs(tokens).max() < 1e3
    assert len(sizes) == 1


def test_the_state_of_another_rule_is_refused():
    state = make(small(cut3r()), "ttt3r").state()
    with pytest.raises(ValueError, match="does not fit"):
        make(small(cut3r()), "ttsa3r").restore(state)
    with pytest.raises(ValueError, match="does not fit"):
        make(small(mem3r()), "ttt3r").restore(state)


def test_encoding_a_batch_equals_encoding_one_by_one():
    network = small(cut3r())
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = network.encode(images).tokens
    alone = torch.cat([network.encode(images[i : i + 1]).tokens for i in range(3)])
    # Rounding to float16 flips where a last bit differs (specification, section 1.1).
    assert scaled(together, alone) <= 8e-5


def test_blocks_are_chained_as_published():
    golden = load("chain")
    chain, found = BlockChain(), []
    poses = golden["view.local_pose"].double().numpy()
    for pose, reset, kept in zip(poses, golden["view.reset"], golden["view.kept"]):
        if kept:
            found.append(chain.place(pose))
        if reset:
            chain.end_block(pose)
    assert scaled(torch.from_numpy(np.stack(found)), golden["frame.world_pose"]) <= 1e-5


def test_scale_of_a_block_follows_the_depth_of_the_shared_image():
    random = np.random.default_rng(0)
    depth = random.uniform(1, 4, (20, 30))
    confidence = random.uniform(1, 3, (20, 30))
    assert depth_ratio(2.5 * depth, depth, confidence, confidence) == pytest.approx(2.5)
    chain = BlockChain(correct_scale=True)
    ahead = np.eye(4)
    ahead[2, 3] = 1.0
    chain.end_block(ahead, 2.5)
    assert np.allclose(chain.place(ahead)[:3, 3], (0, 0, 3.5))
    with pytest.raises(ValueError, match="no scale"):
        depth_ratio(np.full((2, 2), np.nan), depth[:2, :2], confidence[:2, :2], confidence[:2, :2])
