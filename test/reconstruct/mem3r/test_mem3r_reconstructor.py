"""The CUT3R family behind the reconstructor interface: gauges, blocks, memory, refusals."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from network_chain import assert_same, frames

from scal3r_ros import cli
from scal3r_ros.config import ChunkConfig, Config, MemoryConfig, ModelConfig
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.networks.checkpoint import Contents, write_contents
from scal3r_ros.networks.mem3r import checkpoint as weights
from scal3r_ros.networks.mem3r.architecture import PRESETS
from scal3r_ros.networks.mem3r.network import Mem3R
from scal3r_ros.reconstruct.factory import open_reconstructor
from scal3r_ros.reconstruct.interface import ReconstructionFailed, Reconstructor
from scal3r_ros.reconstruct.mem3r.setup import open_mem3r
from scal3r_ros.records import Chunk
from scal3r_ros.tracking.recurrent import RecurrentTracker

SMALL = replace(
    PRESETS["mem3r-tiny"], enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32,
    dec_depth=2, dec_num_heads=2, state_dec_num_heads=2, state_size=12, image_size=48,
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    network = Mem3R(SMALL)
    last, patch = network.downstream_head.proj.fc2, SMALL.patch_size
    with torch.no_grad():  # points near the rays of a camera, one unit away
        offsets = (torch.arange(patch) - (patch - 1) / 2) / patch
        last.weight *= 0.05
        last.bias.zero_()
        last.bias[: patch**2] = offsets.repeat(patch)
        last.bias[patch**2 : 2 * patch**2] = offsets.repeat_interleave(patch)
        last.bias[2 * patch**2 : 3 * patch**2] = 1.0
    state = network.state_dict()
    folder = tmp_path_factory.mktemp("mem3r")
    written = write_contents(Contents(state, "mem3r", SMALL.to_json()), folder, "small")
    return next(path for path in written if path.suffix == ".safetensors")


def opened(checkpoint, overlap=1, **options):
    memory = {k: options.pop(k) for k in ("mode", "reset_every") if k in options}
    model = ModelConfig(reconstructor="mem3r", checkpoint=str(checkpoint), device="cpu", **options)
    return open_mem3r(model, MemoryConfig(**memory), ChunkConfig(size=4, overlap=overlap))


def chain(count=13, size=4, overlap=1):
    chunker = Chunker(ChunkConfig(size=size, overlap=overlap))
    chunks = [chunker.push(frame) for frame in frames(count)] + [chunker.flush()]
    return [chunk for chunk in chunks if chunk]


@pytest.mark.parametrize("rule", ["cut3r", "ttt3r", "ttsa3r"])
def test_within_a_block_it_says_what_the_tracker_says(checkpoint, rule):
    reconstructor = opened(checkpoint, state_rule=rule)
    assert isinstance(reconstructor, Reconstructor)
    tracker = RecurrentTracker(weights.load_network(checkpoint), rule)
    told = {frame.id: tracker.step(frame) for frame in frames(13)}
    for chunk in chain():
        found = reconstructor.reconstruct(chunk)
        for row, number in enumerate(found.frame_ids):
            expected = told[number]
            np.testing.assert_array_equal(found.T_chunk_camera[row], expected.T_block_camera)
            known = np.isfinite(found.depth[row])
            np.testing.assert_array_equal(found.depth[row][known], expected.points[..., 2][known])
        np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)
        assert (found.confidence >= 0).all() and (found.confidence < 1).all()


def test_gauges_say_how_chunks_are_joined(checkpoint):
    def told(reconstructor):
        found = [reconstructor.reconstruct(chunk) for chunk in chain()]
        return [(p.gauge, p.starts_segment) for p in found]

    first, rigid, reset = ("free", False), ("rigid", False), ("rigid", True)
    assert told(opened(checkpoint)) == [first, rigid, rigid, rigid]
    assert told(opened(checkpoint, reset_every=2)) == [first, rigid, reset, rigid]
    assert told(opened(checkpoint, mode="off")) == [first] * 4


def test_a_chain_that_begins_anew_and_loops_have_no_memory(checkpoint):
    disturbed, plain = opened(checkpoint), opened(checkpoint)
    lonely = Chunk(9, 1, frames(4, 50))
    for chunk in chain():
        assert disturbed.reconstruct(lonely, contribute=False).gauge == "free"
        assert_same(disturbed.reconstruct(chunk), plain.reconstruct(chunk))
    assert_same(plain.reconstruct(lonely), opened(checkpoint).reconstruct(lonely))


@pytest.mark.parametrize("rule", ["ttt3r", "ttsa3r"])
def test_a_restored_memory_goes_on_bitwise(checkpoint, rule):
    whole, other = opened(checkpoint, state_rule=rule), opened(checkpoint, state_rule=rule)
    chunks = chain()
    for chunk in chunks[:2]:
        whole.reconstruct(chunk)
    other.restore(whole.state())
    for chunk in chunks[2:]:
        assert_same(whole.reconstruct(chunk), other.reconstruct(chunk))
    with pytest.raises(ValueError, match="model.state_rule is cut3r"):
        opened(checkpoint, state_rule="cut3r").restore(whole.state())
    with pytest.raises(ValueError, match="belongs to reconstructor 'sfm'"):
        other.restore(replace(whole.state(), kind="sfm"))


def test_a_failure_ends_the_block(checkpoint, monkeypatch):
    reconstructor = opened(checkpoint)
    chunks = chain()
    reconstructor.reconstruct(chunks[0])
    bad = replace(chunks[1].frames[-1], rgb=np.zeros((30, 90, 3), np.uint8))
    mixed = replace(chunks[1], frames=(*chunks[1].frames[:-1], bad))
    with pytest.raises(ReconstructionFailed, match="different shapes"):
        reconstructor.reconstruct(mixed)
    assert reconstructor.reconstruct(chunks[2]).gauge == "free"


def test_what_it_cannot_use_is_refused(checkpoint):
    with pytest.raises(ValueError, match="needs weights.*not be used commercially"):
        open_mem3r(ModelConfig(reconstructor="mem3r"), MemoryConfig(), ChunkConfig())
    with pytest.raises(ValueError, match="sum over chunks"):
        opened(checkpoint, mode="batch")
    model = ModelConfig(reconstructor="mem3r", checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="memory.decay"):
        open_reconstructor(Config(model=model, memory=MemoryConfig(decay=0.5)))


def test_public_weights_say_their_licence_when_loaded(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(weights, "CUT3R_224", SMALL)
    with caplog.at_level(logging.WARNING):
        opened(checkpoint)
    assert "no commercial use" in caplog.text


def test_the_command_line_maps_with_it(checkpoint, tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for frame in frames(9):
        Image.fromarray(frame.rgb).save(folder / f"{frame.id:03}.png")
    code = cli.main(
        ["reconstruct", str(folder), "--out", str(tmp_path / "out"), "--reconstructor", "mem3r",
         "--checkpoint", str(checkpoint), "--set", "chunk.size=4", "chunk.overlap=1"]
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "out" / "trajectory.txt").read_text().count("\n") > 3
