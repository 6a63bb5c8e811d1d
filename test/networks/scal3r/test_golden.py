"""The network against reference outputs of the authors' code (`test/data/golden/README.md`).

Everything is read from the files; SCAL3R_GOLDEN_DIR names another folder of the same form.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_files import (
    FOLDER,
    LAYER_WEIGHTS,
    ForcedMemory,
    NotedMemory,
    WatchedNetwork,
    architecture,
    check_outputs,
    check_outputs_loosely,
    chunks_of,
    fixture_weights,
    frobenius,
    images_of,
    load,
    load_memory_unit,
    scaled,
    small_scale_weights,
    weights,
)

from scal3r_ros.mapping.camera import decode_cameras, unproject
from scal3r_ros.networks.fast_weights import FastWeights, apply_weights, newton_schulz
from scal3r_ros.networks.layers import rotary_table, rotate
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.networks.scal3r.schedule import add_memory, advance_all
from scal3r_ros.reconstruct.preprocessing import prepare_image, target_size


def cases(name, pattern):
    return load(name).numbers(pattern)


@pytest.mark.parametrize("case", cases("rope", r"case(\d+)\.x"))
def test_rotary_embedding(case):
    golden = load("rope")
    x, positions = golden[f"case{case}.x"], golden[f"case{case}.positions"]
    base = float(golden.metadata["rope_base"])
    found = [rotate(x[b], rotary_table(p, x.shape[-1], base)) for b, p in enumerate(positions)]
    assert scaled(torch.stack(found), golden[f"case{case}.y"]) <= 1e-5


@pytest.mark.parametrize("case", cases("newton_schulz", r"case(\d+)\.g"))
def test_newton_schulz(case):
    golden = load("newton_schulz")
    g, steps = golden[f"case{case}.g"], int(golden.metadata["steps"])
    assert frobenius(newton_schulz(g, steps, torch.bfloat16), golden[f"case{case}.ns"]) <= 2.5e-2
    exact = golden[f"case{case}.ns_float32"]
    assert scaled(newton_schulz(g, steps, torch.float32), exact) <= 1e-4


@pytest.fixture(scope="module")
def amu():
    return load_memory_unit()


def test_memory_unit_projections(amu):
    golden, unit, chunks = amu
    for c, (tokens, _, whole) in chunks.items():
        x = tokens[:, :, unit.special :].flatten(1, 2)
        k, v, rates = unit.keys_values_rates(x, whole)
        found = {"q": unit.queries(x, whole), "k": k, "v": v, "lr": rates}
        for name, value in found.items():
            assert scaled(value[0], golden[f"chunk{c}.{name}"]) <= 1e-5, name


def test_memory_unit_gradient(amu):
    golden, unit, chunks = amu
    total = None
    for c, (tokens, table, _) in chunks.items():
        g = unit.gradient(tokens, table, token_slice=None)
        for n in range(3):
            assert scaled(g[n], golden[f"chunk{c}.g{n}"]) <= 1e-4
        total = g if total is None else total + g
    for n in range(3):
        assert scaled(total[n], golden[f"gsum{n}"]) <= 1e-4


def test_memory_unit_update(amu):
    golden, unit, _ = amu
    g = FastWeights(*(golden[f"gsum{n}"] for n in range(3)))
    rounded, exact = unit.update(g, torch.bfloat16), unit.update(g, torch.float32)
    for n in range(3):
        ns = newton_schulz(g[n], unit.steps, torch.bfloat16)
        assert frobenius(ns, golden[f"ns{n}"]) <= 1e-2
        ns = newton_schulz(g[n], unit.steps, torch.float32)
        assert scaled(ns, golden[f"ns{n}_float32"]) <= 1e-4
        assert frobenius(rounded[n], golden[f"w{n}_updated"]) <= 1e-2
        assert scaled(exact[n], golden[f"w{n}_updated_float32"]) <= 2e-5


def test_memory_unit_apply(amu):
    golden, unit, chunks = amu
    adapted = FastWeights(*(golden[f"w{n}_updated"] for n in range(3)))
    for c, (tokens, table, whole) in chunks.items():
        residual = unit.residual(tokens, adapted, table, token_slice=None) - tokens
        assert (residual[:, :, : unit.special] == 0).all()
        x = tokens[:, :, unit.special :].flatten(1, 2)
        y = unit.modulated(apply_weights(adapted, unit.queries(x, whole)))
        expected = golden[f"chunk{c}.y"][:, unit.special :].flatten(0, 1)
        assert scaled(y[0], expected) <= 1e-4
        assert scaled(residual[0], golden[f"chunk{c}.y"]) <= 1e-4


def test_memory_unit_alone(amu):
    golden, unit, chunks = amu
    tokens, table, _ = chunks[0]
    adapted = unit.update(unit.gradient(tokens, table, None), torch.float32)
    found = unit.residual(tokens, adapted, table, None) - tokens
    assert scaled(found[0], golden["chunk0.y_alone_ns32"]) <= 1e-3


def test_single_chunk_forced():
    """Every intermediate value of one chunk, layer by layer."""
    golden, network = load("model_single"), WatchedNetwork(weights(), "bfloat16")
    images = images_of(golden)
    tokens = network.encode(images.flatten(0, 1))
    assert scaled(tokens, golden["vit.patch_tokens"]) <= 1e-4
    states = [network.begin(tokens[None], network.grid(images), points=True)]
    assert scaled(states[0].tokens[0], golden["tokens.embed"]) <= 1e-4
    memory, checked = ForcedMemory(golden), set()
    for layer in range(network.architecture.depth):
        advance_all(network, states, layer)
        found = {f"tokens.layer{layer}": states[0].tokens[0]}
        if layer in network.architecture.ttt_layers:
            add_memory(network, states, layer, memory)
            found[f"tokens.layer{layer}_after_ttt"] = states[0].tokens[0]
        for name in found.keys() & golden.tensors.keys():
            assert scaled(found[name], golden[name]) <= 1e-4
            checked.add(name)
    assert checked == {key for key in golden.tensors if key.startswith("tokens.layer")}
    for layer in golden.numbers(r"inter\.layer(\d+)"):
        assert scaled(network.features[layer][0], golden[f"inter.layer{layer}"]) <= 1e-4
    check_outputs(network.decode(states[0]), golden)
    assert sorted(memory.sums) == golden.numbers(LAYER_WEIGHTS)
    for layer, g in memory.sums.items():
        fixture = FastWeights(*(golden[f"ttt.layer{layer}.g{n}"] for n in range(3)))
        adapted = network.agg_regator.memory_unit(layer).update(fixture, torch.bfloat16)
        for n in range(3):
            assert scaled(g[n], fixture[n]) <= 1e-4
            assert frobenius(adapted[n], fixture_weights(golden, layer)[n]) <= 2e-2


def test_single_chunk_free_running():
    golden = load("model_single")
    network, noted = WatchedNetwork(weights(), "float32"), NotedMemory("float32", 1)
    (prediction,) = network(images_of(golden), points=True, memory=noted)
    for layer in golden.numbers(r"ns32\.ttt\.layer(\d+)\.w0_updated"):
        for found, expected in zip(noted.weights[layer], fixture_weights(golden, layer, "ns32.")):
            assert scaled(found, expected) <= 5e-4
    outputs = {k.removeprefix("ns32."): v for k, v in golden.tensors.items() if "ns32." in k}
    check_outputs(prediction, replace(golden, tensors=outputs), factor=5)


def test_single_chunk_bfloat16_loosely():
    golden = load("model_single")
    (prediction,) = WatchedNetwork(weights(), "bfloat16")(images_of(golden), points=True)
    check_outputs_loosely(prediction, golden)


def test_native_grid():
    golden, network = load("model_native_grid_ns32"), WatchedNetwork(weights(), "float32")
    images = images_of(golden)
    tokens = network.encode(images.flatten(0, 1))
    state = network.begin(tokens[None], network.grid(images))
    assert scaled(state.tokens[0], golden["tokens.embed"]) <= 1e-4
    (prediction,) = network(images, points=True)
    check_outputs(prediction, golden, factor=5)


def test_small_scale():
    """Small activations, so that every epsilon shows."""
    golden = load("model_small_scale_ns32")
    network = WatchedNetwork(small_scale_weights(golden), "float32")
    images = images_of(golden)
    state = network.begin(network.encode(images[0])[None], network.grid(images))
    assert scaled(state.tokens[0], golden["tokens.embed"]) <= 1e-4
    (prediction,) = network(images, points=True)
    first_memory = min(network.architecture.ttt_layers)
    for layer in golden.numbers(r"inter\.layer(\d+)"):
        tolerance = 1e-4 if layer < first_memory else 5e-4
        assert scaled(network.features[layer][0], golden[f"inter.layer{layer}"]) <= tolerance
    check_outputs(prediction, golden, factor=5)


def test_coupled_chunks_forced():
    golden, network = load("model_chunks"), WatchedNetwork(weights(), "bfloat16")
    memory = ForcedMemory(golden)
    predictions = network(chunks_of(golden), points=True, memory=memory)
    for c, prediction in enumerate(predictions):
        for layer in golden.numbers(rf"chunk{c}\.inter\.layer(\d+)"):
            expected = golden[f"chunk{c}.inter.layer{layer}"]
            assert scaled(network.features[layer][c], expected) <= 1e-4
        check_outputs(prediction, golden, f"chunk{c}.")
    assert sorted(memory.sums) == golden.numbers(LAYER_WEIGHTS)
    for layer, g in memory.sums.items():
        adapted = network.agg_regator.memory_unit(layer).update(g, torch.bfloat16)
        for found, expected in zip(adapted, fixture_weights(golden, layer)):
            assert frobenius(found, expected) <= 5e-2


def test_coupled_chunks_free_running():
    golden, network = load("model_chunks_ns32"), WatchedNetwork(weights(), "float32")
    chunks = chunks_of(golden)
    noted = NotedMemory("float32", len(chunks))
    predictions = network(chunks, points=True, memory=noted)
    for c, prediction in enumerate(predictions):
        for layer in golden.numbers(rf"chunk{c}\.inter\.layer(\d+)"):
            expected = golden[f"chunk{c}.inter.layer{layer}"]
            assert scaled(network.features[layer][c], expected) <= 5e-4
        check_outputs(prediction, golden, f"chunk{c}.", factor=5)
    assert sorted(noted.weights) == golden.numbers(LAYER_WEIGHTS)
    for layer, adapted in noted.weights.items():
        for found, expected in zip(adapted, fixture_weights(golden, layer)):
            assert scaled(found, expected) <= 5e-4


def test_coupled_chunks_bfloat16_loosely():
    golden = load("model_chunks")
    predictions = WatchedNetwork(weights(), "bfloat16")(chunks_of(golden), points=True)
    for c, prediction in enumerate(predictions):
        check_outputs_loosely(prediction, golden, f"chunk{c}.")


def test_preprocessing():
    golden = load("preprocess")
    for s, sequence in enumerate(golden.setting("sequences")):
        first = golden[f"seq{s}.img0.input_u8"]
        target = target_size(*first.shape[:2], sequence["max_size"], sequence["align"])
        assert target == (sequence["target_h"], sequence["target_w"])
        for f, (height, width) in enumerate(sequence["inputs"]):
            rgb = golden[f"seq{s}.img{f}.input_u8"].numpy()
            prepared = prepare_image(rgb, target, sequence["align"])
            np.testing.assert_array_equal(prepared.rgb, golden[f"seq{s}.img{f}.output_u8"].numpy())
            focal = max(height, width)
            dummy = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
            expected = golden[f"seq{s}.img{f}.K"].numpy()
            np.testing.assert_allclose(prepared.intrinsics(dummy), expected, rtol=0, atol=1e-3)


def test_camera_decoding():
    golden = load("decode")
    height, width = golden.setting("H"), golden.setting("W")
    poses, intrinsics = decode_cameras(golden["encoding"].numpy(), height, width)
    w2c = torch.from_numpy(np.linalg.inv(poses)[:, :3]).float()
    assert scaled(w2c, golden["w2c"]) <= 1e-5
    assert scaled(torch.from_numpy(intrinsics).float(), golden["K"]) <= 1e-5
    np.testing.assert_allclose(poses, golden["c2w"].numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(poses[:, :3, 3], golden["ray_origin"].numpy(), rtol=0, atol=1e-4)
    one = np.ones_like(golden["depth"].numpy())
    directions = unproject(one, intrinsics, poses) - poses[:, None, None, :3, 3]
    np.testing.assert_allclose(directions, golden["ray_dir"].numpy(), rtol=0, atol=1e-4)
    points = unproject(golden["depth"].numpy(), intrinsics, poses)
    np.testing.assert_allclose(points, golden["points_world"].numpy(), rtol=0, atol=1e-4)


def test_full_size_manifest():
    """Keys, shapes and counts of the full-size network, built without memory."""
    manifest = json.loads((FOLDER / "scal3r_state_dict.json").read_text())
    with torch.device("meta"):
        state = Scal3R(Architecture()).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == manifest["tensors"]
    assert len(state) == manifest["num_tensors"]
    assert sum(value.numel() for value in state.values()) == manifest["total_parameters"]


def test_reduced_configuration_is_read_whole():
    stored = json.loads((FOLDER / "model_config.json").read_text())
    built = architecture()
    for name, value in stored.items():
        found = getattr(built, name)
        assert (list(found) if isinstance(found, tuple) else found) == value
