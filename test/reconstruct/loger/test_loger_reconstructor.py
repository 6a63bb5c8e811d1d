"""LoGeR behind the reconstructor interface: gauges, memory, rounds over devices, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loger_chain import loger, save_loger
from network_chain import assert_same, frames
from small_loger import SMALL, SMALL_STAR

from scal3r_ros.config import ChunkConfig, MemoryConfig, ModelConfig
from scal3r_ros.mapping.camera import unproject
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.networks.loger.checkpoint import load_network
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed, Reconstructor
from scal3r_ros.reconstruct.loger.setup import open_loger
from scal3r_ros.reconstruct.loger.window_job import pinhole_matrices
from scal3r_ros.records import Chunk


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_loger(tmp_path_factory.mktemp("loger"))


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    return save_loger(tmp_path_factory.mktemp("star"), SMALL_STAR)


def chain(count=13, size=4, overlap=1):
    chunker = Chunker(ChunkConfig(size=size, overlap=overlap))
    chunks = [chunker.push(frame) for frame in frames(count)] + [chunker.flush()]
    return [chunk for chunk in chunks if chunk]


def test_predictions_are_those_of_the_network(checkpoint):
    reconstructor = loger(checkpoint, point_head=True)
    assert isinstance(reconstructor, Reconstructor)
    network, state = load_network(checkpoint, "loger").network, None
    for chunk in chain(7):
        found = reconstructor.reconstruct(chunk)
        images = torch.from_numpy(found.rgb).permute(0, 3, 1, 2)[None]
        with torch.inference_mode():
            raw, state = network(images, 4, 1, state)
        np.testing.assert_allclose(found.depth, raw.local_points[0, ..., 2], rtol=1e-5)
        np.testing.assert_allclose(found.confidence, raw.confidence[0].sigmoid(), rtol=1e-5)
        np.testing.assert_allclose(found.T_chunk_camera, raw.poses[0], atol=1e-5)
        assert found.depth.size <= 4 * SMALL.pixel_limit
        local = np.einsum(
            "sji,shwj->shwi",
            found.T_chunk_camera[:, :3, :3],
            found.points - found.T_chunk_camera[:, None, None, :3, 3],
        )
        np.testing.assert_allclose(local, raw.local_points[0], rtol=1e-3, atol=1e-4)
        assert found.frame_ids == chunk.frame_ids
        np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)


def test_pinhole_cameras_are_recovered():
    K = np.array([[50.0, 0, 21], [0, 40.0, 14], [0, 0, 1]])
    depth = np.random.default_rng(0).uniform(1, 5, (2, 28, 42)).astype(np.float32)
    points = unproject(depth, np.stack([K, K]), np.stack([np.eye(4)] * 2))
    points[0, 3, 4] = np.nan
    found = pinhole_matrices(torch.from_numpy(points), torch.ones(2, 28, 42))
    np.testing.assert_allclose(found, np.stack([K, K]), rtol=1e-5)


def test_gauges_say_how_windows_are_joined(checkpoint, star):
    def told(reconstructor):
        found = [reconstructor.reconstruct(chunk) for chunk in chain()]
        return [(p.gauge, p.starts_segment) for p in found]

    common, rigid, first = ("common", False), ("rigid", False), ("free", False)
    assert told(loger(checkpoint)) == [first, common, common, common]
    reset = ("rigid", True)
    assert told(loger(checkpoint, reset_every=2)) == [first, common, reset, common]
    star_options = {"reconstructor": "loger-star"}
    assert told(loger(star, **star_options)) == [first, rigid, rigid, rigid]
    assert told(loger(star, reset_every=2, **star_options)) == [first, rigid, reset, rigid]
    assert told(loger(checkpoint, mode="off")) == [first] * 4


def test_a_chain_that_begins_anew_has_no_memory(checkpoint):
    reconstructor = loger(checkpoint)
    for chunk in chain(7):
        reconstructor.reconstruct(chunk)
    lonely = Chunk(9, 1, frames(4, 50))
    found = reconstructor.reconstruct(lonely)
    assert found.gauge == "free"
    assert_same(found, loger(checkpoint).reconstruct(lonely))


def test_loop_windows_see_no_memory_and_leave_none(checkpoint):
    chunks, loop = chain(), Chunk(9, 0, frames(6, 20), kind="loop")
    disturbed, plain = loger(checkpoint), loger(checkpoint)
    for chunk in chunks:
        found = disturbed.reconstruct(loop, contribute=False)
        assert found.gauge == "free"
        assert_same(found, loger(checkpoint).reconstruct(loop, contribute=False))
        assert_same(disturbed.reconstruct(chunk), plain.reconstruct(chunk))


@pytest.mark.parametrize("reset_every", [0, 2])
def test_rounds_over_devices_equal_one_chunk_after_another(checkpoint, reset_every):
    chunks = chain()
    one = loger(checkpoint, reset_every=reset_every)
    several = loger(checkpoint, reset_every=reset_every, devices="cpu, cpu,cpu")
    assert (one.round_size, several.round_size) == (1, 3)
    expected = [one.reconstruct(chunk) for chunk in chunks]
    found = several.reconstruct_round(chunks[:3]) + several.reconstruct_round(chunks[3:])
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)
        assert (a.gauge, a.starts_segment) == (b.gauge, b.starts_segment)


def test_memory_moves_to_another_process(checkpoint):
    chunks = chain()
    one, two = loger(checkpoint, reset_every=2), loger(checkpoint, reset_every=2)
    for chunk in chunks[:1]:
        one.reconstruct(chunk)
    two.restore(one.state())
    assert two.state().version == 1 and two.state().kind == "loger"
    for chunk in chunks[1:]:
        assert_same(two.reconstruct(chunk), one.reconstruct(chunk))
    one.reset()
    assert one.state().version == 0
    assert_same(one.reconstruct(chunks[0]), loger(checkpoint).reconstruct(chunks[0]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "scal3r"}, "belongs to reconstructor 'scal3r'"),
        ({"fingerprint": "00"}, "belongs to weights 00"),
        ({"arrays": {}}, "count of windows is missing"),
    ],
)
def test_unfit_memory_changes_nothing(checkpoint, change, text):
    chunks = chain()
    reconstructor, plain = loger(checkpoint), loger(checkpoint)
    reconstructor.reconstruct(chunks[0])
    plain.reconstruct(chunks[0])
    with pytest.raises(ValueError, match=text):
        reconstructor.restore(replace(reconstructor.state(), **change))
    assert_same(reconstructor.reconstruct(chunks[1]), plain.reconstruct(chunks[1]))


def poison(reconstructor, call):
    """Let the encoder's answer be no numbers at its n-th call."""
    calls = []

    def spoil(module, images, tokens):
        calls.append(1)
        return tokens * torch.nan if len(calls) == call else tokens

    reconstructor.network.encoder.patch_embed.register_forward_hook(spoil)


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_after_a_window_that_fails_the_next_begins_anew(checkpoint, devices):
    reconstructor = loger(checkpoint, devices=devices)
    poison(reconstructor, 2)
    # frames of their own, so that the encoder is called once for each
    chunks = [Chunk(i, 0, frames(4, 10 * i), (10 * i,) if i else ()) for i in range(4)]
    size, outcomes = reconstructor.round_size, []
    for start in range(0, 4, size):
        outcomes += reconstructor.reconstruct_round(chunks[start : start + size])
    assert isinstance(outcomes[1], ReconstructionFailed)
    assert [o.gauge for i, o in enumerate(outcomes) if i != 1] == ["free", "free", "common"]
    alone = loger(checkpoint)
    for chunk, outcome in zip(chunks[2:], outcomes[2:]):
        assert_same(outcome, alone.reconstruct(chunk))


def test_lack_of_device_memory_is_named(checkpoint):
    reconstructor = loger(checkpoint)

    def full(*_):
        raise torch.cuda.OutOfMemoryError("full")

    reconstructor.network.decoder[1].register_forward_pre_hook(full)
    with pytest.raises(OutOfDeviceMemory, match="1 chunk.*do not fit into the memory of cpu"):
        reconstructor.reconstruct(chain()[0])


@pytest.mark.parametrize(
    ("model", "memory", "text"),
    [
        ({"checkpoint": ""}, {}, "loger needs weights; no public place"),
        ({"checkpoint": "none.pt"}, {}, "none.pt does not exist; no public place"),
        ({}, {"mode": "finalize"}, "finalize needs a memory that is a sum.*set it to stream"),
        ({"devices": "cpu,cuda:99"}, {}, "model.devices is cuda:99"),
        (
            {"reconstructor": "loger-star"},
            {},
            "weights of loger, model.recons",
        ),
        ({"image_size": 5, "devices": ""}, {}, None),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(checkpoint, model, memory, text):
    options = {"reconstructor": "loger", "checkpoint": checkpoint, "device": "cpu", **model}
    if text is None:
        reconstructor = open_loger(ModelConfig(**options), MemoryConfig(), ChunkConfig())
        with pytest.raises(ValueError, match="smaller than one patch"):
            reconstructor.reconstruct(chain()[0])
        return
    with pytest.raises(ValueError, match=text):
        open_loger(ModelConfig(**options), MemoryConfig(**memory), ChunkConfig())
