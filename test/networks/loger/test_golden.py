"""The network against reference outputs of the authors' code (`golden/README.md`).

Everything is read from the files; LOGER_GOLDEN_DIR names another folder of the same form.
"""

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from loger_golden import (
    FOLDER,
    TOLERANCES,
    Run,
    architecture,
    check,
    load,
    names,
    network_for,
)

from scal3r_ros.mapping.chunking import partition
from scal3r_ros.networks.fast_weights import FastWeights, newton_schulz
from scal3r_ros.networks.layers import rotary_table, rotate
from scal3r_ros.networks.loger.architecture import LOGER, LOGER_STAR, Architecture
from scal3r_ros.networks.loger.fast_memory import FastMemory
from scal3r_ros.networks.loger.heads import (
    CameraHead,
    PatchHead,
    local_points,
    nearest_rotation,
    world_points,
)
from scal3r_ros.networks.loger.merge import (
    as_predicted,
    by_block,
    damped_scale,
    median_scale,
    merged,
    rigid,
    similar,
    trimmed_mean_scale,
)
from scal3r_ros.networks.loger.network import LoGeR, Prediction
from scal3r_ros.networks.loger.state import WindowState
from scal3r_ros.networks.loger.window_attention import WindowAttention
from scal3r_ros.networks.loger.windows import window_tokens
from scal3r_ros.reconstruct.loger.images import prepare_image, target_size

SCALES = {
    "median": (median_scale, False),
    "median_all": (median_scale, True),
    "trimmed_mean": (trimmed_mean_scale, False),
    "trimmed_mean_all": (trimmed_mean_scale, True),
    "sim3_avg1": (damped_scale, False),
}


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def parameters(golden, prefix):
    start = f"param.{prefix}."
    return {k.removeprefix(start): v for k, v in golden.tensors.items() if k.startswith(start)}


def test_rotary_embedding():
    golden, found = load("rope"), {}
    base = float(golden.metadata["rope_base"])
    for case in golden.numbers(r"case(\d+)\.x"):
        for end, angles in (("", torch.float32), ("_bfloat16", torch.bfloat16)):
            x, positions = golden[f"case{case}.x{end}"], golden[f"case{case}.positions"]
            tables = [rotary_table(p, x.shape[-1], base, angles) for p in positions]
            turned = torch.stack([rotate(x[b].float(), t) for b, t in enumerate(tables)])
            found[f"case{case}.y{end}"] = turned.to(angles)
    check("rope", found)


def test_newton_schulz():
    golden, found = load("newton_schulz"), {}
    steps = int(golden.metadata["steps"])
    for case in golden.numbers(r"case(\d+)\.g"):
        g = golden[f"case{case}.g"]
        found[f"case{case}.ns"] = newton_schulz(g, steps, torch.bfloat16)
        found[f"case{case}.ns_float32"] = newton_schulz(g, steps, torch.float32)
        found[f"case{case}.ns_compiled"] = found[f"case{case}.ns"]
    check("newton_schulz", found)


def memory_layer(golden, pre_norm):
    dim, width = golden.setting("dim"), golden.setting("head_dim")
    sizes = Architecture(
        embed_dim=dim,
        encoder_num_heads=1,
        decoder_num_heads=1,
        ttt_head_dim=width,
        ttt_inter_multi=golden.setting("inter_multi"),
        ttt_base_lr=golden.setting("base_lr"),
        muon_steps=golden.setting("muon_steps"),
        ttt_pre_norm=pre_norm,
    )
    memory, gate = FastMemory(sizes), torch.nn.Linear(dim, 1)
    state = parameters(golden, "ttt")
    if not pre_norm:
        del state["pre_norm.weight"]
    memory.load_state_dict(state, strict=True)
    gate.load_state_dict(parameters(golden, "gate"), strict=True)
    return memory, gate


def test_fast_memory():
    """Each step from the fixture's own previous one; weights of a window are those read by the
    next."""
    golden, found = load("ttt"), {}
    windows = golden.numbers(r"window(\d+)\.x")
    for variant in ("pre", "nopre"):
        memory, gate = memory_layer(golden, variant == "pre")
        for i in windows:
            start = f"{variant}.window{i}."
            x = golden[f"window{i}.x"]
            tokens = x.flatten(0, 1)[None]
            q, k, v = memory.projected(tokens)
            found |= {f"{start}{n}": t for n, t in (("q", q), ("k", k), ("v", v))}
            found[f"{start}lr"] = memory.rates(tokens)
            for end, dtype in (("", torch.bfloat16), ("_float32", torch.float32)):
                before = memory.initial()
                if i > 0:
                    name = f"{variant}.window{i - 1}.w{{}}_updated{end}"
                    before = FastWeights(*(golden[name.format(n)] for n in range(3)))
                g_end = end if f"{start}g0{end}" in golden.tensors else ""
                given = FastWeights(*(golden[f"{start}g{n}{g_end}"] for n in range(3)))
                y = memory.answer(tokens, before, None)
                gated = tokens + torch.nn.functional.silu(gate(tokens)) * y
                g = memory.gradient(tokens, before, None)
                moved = memory.update(before, given, dtype)
                out = {"y": y.view_as(x), "gated": gated.view_as(x)}
                out |= {f"g{n}": g[n] for n in range(3)}
                for n in range(3):
                    found[f"{start}ns{n}{end}"] = newton_schulz(given[n], memory.steps, dtype)
                    found[f"{start}w{n}_updated{end}"] = moved[n]
                present = {f"{start}{name}{end}": value for name, value in out.items()}
                found |= {k: v for k, v in present.items() if k in golden.tensors}
    check("ttt", found)


def test_window_attention():
    golden, found = load("swa"), {}
    dim, heads = golden.setting("dim"), golden.setting("heads")
    sizes = Architecture(
        embed_dim=dim,
        decoder_num_heads=heads,
        encoder_num_heads=1,
        ttt_head_dim=dim,
        ttt_inter_multi=golden.setting("mlp_multiplier"),
    )
    block, gate = WindowAttention(sizes), torch.nn.Linear(dim, 1)
    block.load_state_dict(parameters(golden, "swa"), strict=True)
    gate.load_state_dict(parameters(golden, "gate"), strict=True)
    cache = None
    for i in golden.numbers(r"window(\d+)\.x"):
        x = golden[f"window{i}.x"]
        rotary = rotary_table(golden[f"window{i}.positions"][0], dim // heads, LOGER.rope_base)
        y, cache = block.attend(x.flatten(0, 1)[None], rotary, cache)
        y = y.view_as(x)
        gated = x + torch.nn.functional.silu(gate(y)) * y
        out = {"y": y, "gated": gated, "k": cache.keys, "v": cache.values}
        found |= {f"window{i}.{name}": value for name, value in out.items()}
    check("swa", found)


def test_heads():
    golden, found = load("heads"), {}
    width, grid = golden.setting("head_dim"), tuple(golden.setting("grid"))
    patch = golden["conf.logits"].shape[1] // grid[0]
    points, conf = PatchHead(width, 3, patch), PatchHead(width, 1, patch)
    camera = CameraHead(golden.setting("camera_dim"))
    for head, name in ((points, "point_head"), (conf, "conf_head"), (camera, "camera_head")):
        head.load_state_dict(parameters(golden, name), strict=True)
    found["point.local_points"] = local_points(points(golden["point.tokens"], grid))
    found["conf.logits"] = conf(golden["conf.tokens"], grid)[..., 0]
    found["conf.confidence"] = found["conf.logits"].sigmoid()
    found["camera.pose"] = camera(golden["camera.tokens"])
    found["points"] = world_points(found["camera.pose"], found["point.local_points"])
    found["svd.rotation"] = nearest_rotation(golden["svd.m9"])
    check("heads", found)


def test_windows_and_their_tokens():
    content = json.loads((FOLDER / "windows.json").read_text())
    for case in content["window_tokens"]:
        found = window_tokens(case["frames"], case["window_size"], case["overlap_size"])
        assert found == case["index"], case
    for case in content["windows"]:
        spans = partition(case["frames"], case["window_size"], case["overlap_size"])
        assert [[s.start, s.stop] for s in spans] == case["windows"], case
        frames = [torch.full((len(span), 4, 4), float(m)) for m, span in enumerate(spans)]
        plain = [Prediction(x, x[:, :1, :1, None], x[:, 0]) for x in frames]
        merge = merged(plain, spans, as_predicted(plain, spans))
        assert merge.confidence[:, 0].int().tolist() == case["owner"], case


def test_resize_rule():
    content = json.loads((FOLDER / "resize.json").read_text())
    for width, height, target_width, target_height in content["sizes"]:
        found = target_size(height, width, content["pixel_limit"], LOGER.patch_size)
        assert found == (target_height, target_width), (width, height)


def test_preprocessing():
    golden, found = load("preprocess"), {}
    for s, sequence in enumerate(golden.setting("sequences")):
        first = golden[f"seq{s}.img0.input_u8"]
        target = target_size(*first.shape[:2], sequence["pixel_limit"], LOGER.patch_size)
        assert list(target) == sequence["target"][::-1]
        for f in range(len(sequence["inputs"])):
            rgb = golden[f"seq{s}.img{f}.input_u8"].numpy()
            prepared = np.array(prepare_image(rgb, target))
            found[f"seq{s}.img{f}.output_u8"] = torch.from_numpy(prepared)
    check("preprocess", found)


def test_merge():
    golden, found = load("merge"), {}
    spans = [range(*span) for span in golden.setting("spans")]
    windows = [
        Prediction(*(golden[f"window{m}.{n}"] for n in ("camera_poses", "local_points", "conf")))
        for m in range(len(spans))
    ]
    every = golden.setting("reset_every")
    moved = {
        "plain": as_predicted(windows, spans),
        "se3": rigid(windows, spans),
        "se3_reset": rigid(windows, spans),
        "reset": by_block(windows, spans, every),
    }
    for mode, (scale, all_shared) in SCALES.items():
        moved[f"sim3_{mode.removeprefix('sim3_')}"] = similar(windows, spans, scale, all_shared)
    for name, places in moved.items():
        found |= {f"{name}.{k}": v for k, v in merge_tensors(windows, spans, places).items()}
    for number, (_, mode) in enumerate(golden.setting("scale_cases")):
        depths = (golden[f"scale{number}.depth_{when}"] for when in ("prev", "cur"))
        found[f"scale{number}.scale"] = SCALES[mode][0](*depths).reshape(1)
    check("merge", {k: v for k, v in found.items() if k in golden.tensors}, inputs="merge")


def merge_tensors(windows, spans, places):
    merge = merged(windows, spans, places)
    canonical = merge.canonical()
    return {
        "camera_poses": merge.poses,
        "local_points": merge.local_points,
        "conf": merge.confidence,
        "points": merge.points,
        "window_transforms": torch.stack([place.transform for place in places]),
        "window_scales": torch.stack([place.scale for place in places]),
        "canonical_camera_poses": canonical.poses,
        "canonical_points": canonical.points,
    }


@pytest.mark.parametrize("name", names("^model_(single|native)"))
def test_single_window(name):
    golden = load(name)
    network = network_for(golden)
    sizes = golden.setting("window_size"), golden.setting("overlap_size")
    run = Run(network, golden["images_u8"], sizes, WindowState())
    out = run.prediction
    found = run.tensors() | {
        "camera_poses": out.poses,
        "local_points": out.local_points,
        "conf": out.confidence,
        "points": world_points(out.poses, out.local_points),
    }
    for layer, g in run.gradients().items():
        memory, start = network.ttt_layers[layer], f"ttt.layer{layer}."
        if f"{start}g0" not in golden.tensors:
            continue
        given = FastWeights(*(golden[f"{start}g{n}"] for n in range(3)))
        for n, w in enumerate(memory.update(memory.initial(), given, torch.bfloat16)):
            found[f"{start}g{n}"] = g[n]
            found[f"{start}w{n}_updated_float32"] = run.after.weights[layer][n]
            found[f"{start}w{n}_updated"] = w
    check(name, {key: value for key, value in found.items() if key in golden.tensors})


def run_sequence(name, newton_schulz, forced=False):
    """All windows of a fixture and their merge, by its names."""
    golden, found = load(name), {}
    network = network_for(golden, newton_schulz, golden_factors(golden))
    sizes = golden.setting("window_size"), golden.setting("overlap_size")
    spans = partition(len(golden["images_u8"]), *sizes)
    assert [list(golden[f"window{m}.range"]) for m in range(len(spans))] == [
        [s.start, s.stop] for s in spans
    ]
    state, windows = WindowState(), []
    every = golden.setting("reset_every")
    for m, span in enumerate(spans):
        images = golden["images_u8"][span.start : span.stop]
        run = Run(network, images, sizes, state.before_next(every))
        windows.append(run.prediction)
        seen = run.tensors() | run.projections() | {"camera_poses": run.prediction.poses}
        found |= {f"window{m}.{key}": value for key, value in seen.items()}
        state = forced_state(golden, m, run.after) if forced else run.after
    places = placements(golden, windows, spans, every)
    tensors = merge_tensors(windows, spans, places)
    found |= {f"merged.{key}": value for key, value in tensors.items()}
    found["canonical.camera_poses"] = tensors["canonical_camera_poses"]
    return {key: value for key, value in found.items() if key in golden.tensors}


def golden_factors(golden):
    return golden.setting("weight_factors") if "weight_factors" in golden.metadata else ()


def forced_state(golden, m, after):
    """What the window left, with the fixture's fast weights in place of the computed ones."""
    start = f"window{m}.ttt.layer"
    weights = {
        layer: FastWeights(*(golden[f"{start}{layer}.w{n}_updated"] for n in range(3)))
        for layer in after.weights
    }
    return replace(after, weights=weights)


def placements(golden, windows, spans, every):
    if golden.setting("sim3"):
        scale, all_shared = SCALES[golden.metadata["sim3_scale_mode"]]
        return similar(windows, spans, scale, all_shared)
    if golden.setting("se3"):
        return rigid(windows, spans)
    return by_block(windows, spans, every) if every else as_predicted(windows, spans)


@pytest.mark.parametrize("name", names("^model_.*_ns32$"))
def test_sequence_free_running(name):
    check(name, run_sequence(name, load(name).metadata["newton_schulz"]))


FORCED = [
    name
    for name in names("^model_")
    if any(re.search(rule[0], name) for rule in TOLERANCES["free"])
]


@pytest.mark.parametrize("name", FORCED)
def test_sequence_forced(name):
    check(name, run_sequence(name, load(name).metadata["newton_schulz"], forced=True))


@pytest.mark.parametrize("name", FORCED)
def test_sequence_bfloat16_loosely(name):
    check(name, run_sequence(name, load(name).metadata["newton_schulz"]), rules="free")


def test_every_fixture_is_read():
    tested = {"rope", "newton_schulz", "ttt", "swa", "heads", "preprocess", "merge"}
    tested |= {"model_weights", *names("^model_(single|native)"), *names("_ns32$"), *FORCED}
    assert set(names("")) == tested


@pytest.mark.parametrize("variant, full", [("LoGeR", LOGER), ("LoGeR_star", LOGER_STAR)])
def test_full_size_manifest(variant, full):
    """Keys, shapes and counts of the full-size network, built without memory."""
    manifest = json.loads((FOLDER / "loger_state_dict.json").read_text())[variant]
    with torch.device("meta"):
        network = LoGeR(full)
    state = network.state_dict()
    found = {k: [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state.items()}
    assert found == manifest["tensors"]
    assert len(state) == manifest["tensor_count"]
    assert sum(value.numel() for value in state.values()) == manifest["total_numbers"]
    assert sorted(name for name, _ in network.named_buffers()) == sorted(manifest["buffers"])


def test_reduced_configuration_is_read_whole():
    stored = json.loads((FOLDER / "model_config.json").read_text())
    built = asdict(architecture())
    for name, value in stored.items():
        found = built[name]
        assert (list(found) if isinstance(found, tuple) else found) == value
