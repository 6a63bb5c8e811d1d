"""The network behind the reconstructor interface: modes, frame order, memory, refusals."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from network_chain import SIZES, assert_same, chain, frames, reconstructor  # noqa: E402

from scal3r_ros.config import MemoryConfig, ModelConfig  # noqa: E402
from scal3r_ros.mapping.camera import decode_cameras  # noqa: E402
from scal3r_ros.networks.scal3r.checkpoint import load_network  # noqa: E402
from scal3r_ros.reconstruct.devices import resolve_device  # noqa: E402
from scal3r_ros.reconstruct.interface import (  # noqa: E402
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.reconstruct.scal3r.chunk_job import network_order  # noqa: E402
from scal3r_ros.reconstruct.scal3r.setup import open_scal3r, resolve_numerics  # noqa: E402
from scal3r_ros.records import Chunk  # noqa: E402


@pytest.mark.parametrize(("count", "first"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (60, 29)])
def test_middle_frame_moves_to_the_front_and_the_rest_keep_their_order(count, first):
    order = network_order(count)
    assert order[0] == first
    assert order[1:] == [i for i in range(count) if i != first]


def test_five_frames_are_not_swapped():
    assert network_order(5) == [2, 0, 1, 3, 4]


def test_prediction_is_chronological_and_equals_the_bare_network(folder):
    chunk = Chunk(0, 0, frames(5))
    found = reconstructor(folder).reconstruct(chunk)
    network = load_network(folder).network
    order = [2, 0, 1, 3, 4]
    images = torch.from_numpy(found.rgb[order]).permute(0, 3, 1, 2)[None]
    (raw,) = network(images)
    for position, frame in enumerate(order):
        np.testing.assert_allclose(found.depth[frame], raw.depth[0, position], rtol=1e-5)
        np.testing.assert_allclose(
            found.confidence[frame], raw.depth_confidence[0, position], rtol=1e-5
        )
    poses, intrinsics = decode_cameras(raw.camera[0].numpy(), *found.depth.shape[1:])
    np.testing.assert_allclose(found.T_chunk_camera[order], poses, atol=1e-5)
    np.testing.assert_allclose(found.intrinsics[order], intrinsics, rtol=1e-5)
    assert found.depth.shape == (5, 42, 56)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)


def test_modes_agree_where_they_must(folder):
    chunks = chain()
    batch = reconstructor(folder, mode="batch")
    assert batch.round_size is None
    expected = batch.reconstruct_round(chunks)
    last = reconstructor(folder, mode="finalize")
    streamed = [last.reconstruct(chunk) for chunk in chunks]
    for found, want in zip(last.finalize(), expected, strict=True):
        assert_same(found, want, 1e-5)
    assert np.abs(streamed[0].depth - expected[0].depth).max() > 1e-3
    stream = reconstructor(folder)
    assert isinstance(stream, Reconstructor)
    for chunk, want in zip(chunks, streamed):
        assert_same(stream.reconstruct(chunk), want)
    assert_same(stream.reconstruct_round([Chunk(9, 0, frames(3))])[0], stream_again(folder))
    first = reconstructor(folder, mode="batch").reconstruct_round(chunks[:1])[0]
    local = reconstructor(folder, mode="local")
    assert_same(first, streamed[0])
    assert_same(local.reconstruct(chunks[0]), first)
    for found, want in zip([local.reconstruct(c) for c in chunks[1:]], streamed[1:]):
        assert np.abs(found.depth - want.depth).max() > 1e-3
    assert local.state().version == 0 and stream.state().version == 4


def stream_again(folder):
    fresh = reconstructor(folder)
    for chunk in chain():
        fresh.reconstruct(chunk)
    return fresh.reconstruct(Chunk(9, 0, frames(3)))


def test_shared_frames_pass_the_encoder_once(folder):
    encoder = reconstructor(folder)
    counts = []
    encoder.network.agg_regator.patch_embed.register_forward_pre_hook(
        lambda module, images: counts.append(len(images[0]))
    )
    chunks = chain()
    found = [encoder.reconstruct(chunk) for chunk in chunks]
    assert counts == [5, 3, 2]
    fresh = reconstructor(folder)
    for chunk, have in zip(chunks, found):
        fresh._intake._cache = type(fresh._intake._cache)()
        assert_same(fresh.reconstruct(chunk), have, 1e-5)


def test_memory_state_moves_to_another_process(folder):
    chunks = chain()
    one, two = reconstructor(folder), reconstructor(folder)
    one.reconstruct(chunks[0])
    two.restore(one.state())
    assert two.state().version == 1
    assert_same(two.reconstruct(chunks[1]), one.reconstruct(chunks[1]))
    one.reset()
    assert one.state().version == 0
    assert_same(one.reconstruct(chunks[0]), reconstructor(folder).reconstruct(chunks[0]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "sfm"}, "belongs to reconstructor 'sfm'"),
        ({"fingerprint": "00"}, "belongs to weights 00"),
        ({"arrays": {}}, "chunk counts are missing"),
    ],
)
def test_unfit_memory_states_change_nothing(folder, change, text):
    from dataclasses import replace

    engine = reconstructor(folder)
    engine.reconstruct(chain()[0])
    before = engine.state()
    with pytest.raises(ValueError, match=text):
        engine.restore(replace(before, **change))
    for name, value in engine.state().arrays.items():
        np.testing.assert_array_equal(value, before.arrays[name])


@pytest.mark.parametrize("mode", ["stream", "finalize"])
def test_a_round_that_breaks_in_the_exchange_leaves_no_trace(folder, mode):
    chunks, engine, calls = chain(), reconstructor(folder, mode=mode), []
    engine.reconstruct(chunks[0])
    before = engine.state()

    def broken(layer, gradients):
        calls.append(layer)
        if len(calls) == 2:
            raise ConnectionError("peer lost")
        return gradients

    with pytest.raises(ConnectionError, match="peer lost"):
        engine.stage_round([chunks[1]], places=[0], size=2, sync=broken)
    engine.rollback()
    assert calls == list(SIZES.ttt_layers)
    for name, value in engine.state().arrays.items():
        np.testing.assert_array_equal(value, before.arrays[name])
    reference = reconstructor(folder, mode=mode)
    for chunk in chunks[:2]:
        want = reference.reconstruct(chunk)
    assert_same(engine.reconstruct(chunks[1]), want)
    if mode == "finalize":
        assert len(list(engine.finalize())) == 2


def test_idle_process_takes_part_with_zeros(folder):
    engine, seen = reconstructor(folder), {}

    def sync(layer, gradients):
        seen[layer] = max(float(g.abs().max()) for g in gradients)
        return gradients

    assert engine.stage_round([], places=[], size=1, sync=sync) == []
    engine.commit()
    assert seen == dict.fromkeys(SIZES.ttt_layers, 0.0)
    assert engine.state().version == 1


def test_numbers_that_are_not_finite_never_reach_the_memory(folder):
    engine = reconstructor(folder)
    engine.reconstruct(chain()[0])
    before = engine.state()
    weight = engine.network.agg_regator.frame_blocks[0].mlp.fc2.bias
    kept = weight[0].item()
    weight[0] = float("nan")
    with pytest.raises(ReconstructionFailed, match="not finite"):
        engine.reconstruct(chain()[1])
    weight[0] = kept
    for name, value in engine.state().arrays.items():
        np.testing.assert_array_equal(value, before.arrays[name])


def test_point_head_and_images_of_other_sizes(folder):
    model = ModelConfig(checkpoint=str(folder), device="cpu", point_head=True, image_size=84)
    engine = open_scal3r(model, MemoryConfig())
    mixed = frames(2) + frames(1, 2, (90, 40)) + frames(1, 3, (4, 5))
    found = engine.reconstruct(Chunk(0, 0, mixed))
    assert found.depth.shape == (4, 56, 84)
    assert found.points.shape == (4, 56, 84, 3)
    assert np.isfinite(found.points).all()
    assert set(found.timings) == {"encode", "layers", "heads"}
    late = open_scal3r(model, MemoryConfig())
    rest = Chunk(0, 0, mixed[2:], first_size=mixed[0].rgb.shape[:2])
    assert late.reconstruct(rest).depth.shape == (2, 56, 84)


def test_single_frame_chunk(folder):
    found = reconstructor(folder).reconstruct(Chunk(0, 0, frames(1)))
    assert found.depth.shape[0] == 1 and np.isfinite(found.depth).all()


def test_device_memory_that_runs_out_has_a_name(folder):
    engine = reconstructor(folder)

    def exhausted(layer, gradients):
        raise torch.cuda.OutOfMemoryError("tried to allocate 9 GiB")

    with pytest.raises(OutOfDeviceMemory, match="lower chunk.size"):
        engine.stage_round([chain()[0]], sync=exhausted)


def test_settings_that_cannot_be(folder):
    with pytest.raises(ValueError, match="does not stream"):
        reconstructor(folder, mode="batch", window=4)
    with pytest.raises(ValueError, match="needs memory.mode finalize"):
        reconstructor(folder).finalize()
    with pytest.raises(ValueError, match="model.device"):
        resolve_device("tpu0")
    with pytest.raises(ValueError, match="CUDA devices are visible"):
        resolve_device("cuda:99")
    numerics = resolve_numerics(ModelConfig(token_slice=100), torch.device("cpu"))
    assert numerics.blocks == "float32" and numerics.token_slice == 100
