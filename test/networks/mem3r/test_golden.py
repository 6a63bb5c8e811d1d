"""The network against reference outputs of the authors' code, and of section 6 of the
specification for Mem3R (`golden/README.md`)."""

import json
from dataclasses import replace

import pytest
import torch
from mem3r_fixtures import (
    FOLDER,
    architecture,
    cut3r,
    images_of,
    load,
    mem3r,
    scaled,
)
from torch import nn

from scal3r_ros.networks.layers import rotary_table, rotate
from scal3r_ros.networks.mem3r import outputs
from scal3r_ros.networks.mem3r.architecture import CUT3R_224, CUT3R_512, EPS
from scal3r_ros.networks.mem3r.attention import image_positions, rotate_half, state_positions, table
from scal3r_ros.networks.mem3r.heads import Hooks, LinearHeads
from scal3r_ros.networks.mem3r.network import Encoded, Mem3R
from scal3r_ros.networks.mem3r.pose_fast_weights import PoseFastWeights, PoseWeights, update
from scal3r_ros.networks.mem3r.recurrence import begin, step
from scal3r_ros.networks.mem3r.state_rules import (
    RULES,
    MeanScores,
    ScoreMatrix,
    Seen,
    dissimilarity,
    spatial_mask,
    temporal_mask,
)
from scal3r_ros.reconstruct.mem3r.images import network_input, prepare
from scal3r_ros.train.recurrent_objective import ViewPrediction, objective, view_target


def cases(name, pattern):
    return load(name).numbers(pattern)


def batched(golden, *names):
    """Tensors with a batch dimension in front."""
    return tuple(golden[name][None] for name in names)


@pytest.mark.parametrize("which", ["512", "224"])
def test_keys_and_shapes_of_the_public_models(which):
    manifest = json.loads((FOLDER / "cut3r_state_dict.json").read_text())
    with torch.device("meta"):
        network = Mem3R(CUT3R_512 if which == "512" else CUT3R_224)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    expected = manifest["tensors"]
    if which == "224":
        manifest = manifest["linear_224"]
        own = {k: v for k, v in expected.items() if not k.startswith("downstream_head.")}
        expected = own | manifest["downstream_head"]
    assert found == expected
    assert len(found) == manifest["keys"]
    assert sum(p.numel() for p in network.parameters()) == manifest["total_parameters"]


def test_mem3r_is_cut3r_with_two_modules_instead_of_the_slots():
    with torch.device("meta"):
        plain = Mem3R(CUT3R_512).state_dict()
        mem = Mem3R(replace(CUT3R_512, pose_memory="fast_weights")).state_dict()
    new = {key.split(".")[0] for key in mem.keys() - plain.keys()}
    gone = {key.split(".")[0] for key in plain.keys() - mem.keys()}
    assert (new, gone) == ({"pose_memory", "state_gate"}, {"pose_retriever"})
    assert all(mem[key].shape == plain[key].shape for key in mem.keys() & plain.keys())


@pytest.mark.parametrize("case", cases("rope", r"case(\d+)\.x"))
def test_rotary_embedding(case):
    golden = load("rope")
    x, positions = golden[f"case{case}.x"], golden[f"case{case}.positions"]
    tables = [rotary_table(p, x.shape[-1], float(golden.settings["base"])) for p in positions]
    plain = torch.stack([rotate(row, t) for row, t in zip(x, tables)])
    half = torch.stack([rotate_half(row, t) for row, t in zip(x, tables)])
    assert scaled(plain, golden[f"case{case}.y"]) <= 1e-5
    difference = (half - golden[f"case{case}.y_half"]).abs()
    assert float(difference.max()) <= 1e-3
    assert float((difference > 0).float().mean()) <= 0.02


def test_embedding_of_images_and_first_state():
    golden, network = load("blocks"), cut3r()
    image = golden["embed.image_u8"][None].float() / 127.5 - 1
    encoded = network.encode(image)
    device = torch.device("cpu")
    assert torch.equal(
        image_positions(encoded.grid, False, device), golden["embed.positions"].long()
    )
    assert torch.equal(
        image_positions(encoded.grid, True, device), golden["img_positions_with_pose"].long()
    )
    at_state = state_positions(len(golden["state.positions"]), "2d", device)
    assert torch.equal(at_state, golden["state.positions"].long())
    assert scaled(network.patch_embed(image)[0], golden["embed.tokens"]) <= 1e-5
    assert scaled(network.initial_state(1)[0], golden["state.initial"]) <= 1e-5
    assert scaled(encoded.tokens[0], golden["embed.encoded"]) <= 8e-5


@pytest.mark.parametrize("case", cases("blocks", r"enc(\d+)\.x"))
def test_encoder_block(case):
    golden, network = load("blocks"), cut3r()
    a = network.architecture
    rotary = table(golden["embed.positions"], a.enc_embed_dim // a.enc_num_heads)
    block = network.enc_blocks[golden.settings["encoder_block"]]
    found = block(golden[f"enc{case}.x"][None], rotary)[0]
    # Inputs of size one flip roundings to float16 rarely, tiny ones more often.
    assert scaled(found, golden[f"enc{case}.y"]) <= (1e-5 if case == 0 else 8e-5)


@pytest.mark.parametrize("case", cases("blocks", r"dec(\d+)\.img_in"))
def test_decoder_blocks(case):
    golden, network = load("blocks"), cut3r()
    a, number = network.architecture, golden.settings["decoder_block"]
    state, image = batched(golden, f"dec{case}.state_in", f"dec{case}.img_in")
    at_image, at_state = golden["img_positions_with_pose"], golden["state.positions"]
    seen = {}

    def watch(queries, keys):
        seen["scores"] = queries @ keys.mT * queries.shape[-1] ** -0.5

    sizes = (a.dec_embed_dim // a.state_dec_num_heads, a.dec_embed_dim // a.dec_num_heads)
    of_state, of_image = network.dec_blocks_state[number], network.dec_blocks[number]
    turns = [(table(at_state, size), table(at_image, size)) for size in sizes]
    new_state = of_state(state, image, turns[0][0], turns[0][1], watch)[0]
    new_image = of_image(image, state, turns[1][1], turns[1][0])[0]
    assert scaled(new_state, golden[f"dec{case}.state_out"]) <= 1e-5
    assert scaled(new_image, golden[f"dec{case}.img_out"]) <= 1e-5
    if f"dec{case}.state_cross_logits" in golden:
        expected = golden[f"dec{case}.state_cross_logits"]
        assert scaled(seen["scores"][0], expected) <= 1e-5


@pytest.mark.parametrize("case", cases("blocks", r"mod(\d+)\.x"))
def test_block_modulated_by_the_pose(case):
    golden, network = load("blocks"), cut3r()
    block = network.downstream_head.final_transform[golden.settings["modulated_block"]]
    rotary = table(golden["embed.positions"], network.downstream_head.head_dim)
    found = block(*batched(golden, f"mod{case}.x", f"mod{case}.token"), rotary)[0]
    assert scaled(found, golden[f"mod{case}.y"]) <= 1e-5


@pytest.mark.parametrize("case", cases("blocks", r"norm(\d+)\.x"))
def test_norms(case):
    golden, network = load("blocks"), cut3r()
    wide, narrow = golden[f"norm{case}.x"], golden[f"norm{case}.y"]
    assert scaled(network.enc_norm(wide), golden[f"norm{case}.enc"]) <= 1e-5
    assert scaled(network.dec_norm(narrow), golden[f"norm{case}.dec"]) <= 1e-5
    assert scaled(network.dec_norm_state(narrow), golden[f"norm{case}.dec_state"]) <= 1e-5
    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {EPS}


@pytest.mark.parametrize("case", cases("retriever", r"read(\d+)\.query"))
def test_reading_the_slots(case):
    golden, memory = load("retriever"), cut3r().memory
    query, slots = batched(golden, f"read{case}.query", f"read{case}.mem")
    assert scaled(memory.read(query, (slots,))[0], golden[f"read{case}.token"]) <= 1e-5


@pytest.mark.parametrize("case", cases("retriever", r"write(\d+)\.mem$"))
def test_writing_the_slots(case):
    golden, memory = load("retriever"), cut3r().memory
    names = (f"write{case}.feat", f"write{case}.mem", f"write{case}.pose")
    feature, slots, pose = batched(golden, *names)
    (found,) = memory.write(feature, (slots,), pose)
    assert scaled(found[0], golden[f"write{case}.mem_new"]) <= 1e-5


def test_raw_numbers_to_poses_points_and_focal_length():
    golden = load("heads")
    encoding = outputs.pose_encoding(golden["pose.raw"])
    assert scaled(encoding, golden["pose.encoding"]) <= 1e-5
    assert scaled(outputs.pose_matrix(encoding), golden["pose.matrix"]) <= 1e-5
    raw = golden["maps.raw"][None]
    points, confidence = outputs.points_and_confidence(raw)
    assert scaled(points[0], golden["maps.points"]) <= 1e-5
    assert scaled(confidence[0], golden["maps.conf"]) <= 1e-5
    mirrored, _ = outputs.points_and_confidence(raw, forward_only=True)
    assert scaled(mirrored[0], golden["maps.points_positive_z"]) <= 1e-5
    focal = outputs.focal_length(golden["focal.points"][None])
    assert scaled(focal, golden["focal.focal"]) <= 1e-5


def test_convolutional_heads():
    golden, heads = load("heads"), cut3r().downstream_head
    patch = cut3r().architecture.patch_size
    height, width = golden["dpt.raw_self"].shape[1:]
    levels = batched(golden, "dpt.hook0", "dpt.hook1", "dpt.hook2")
    hooks = Hooks(levels, golden["dpt.hook3"][None], (height // patch, width // patch))
    raw = heads.raw(heads.dpt_self, hooks, hooks.patches)[0]
    assert scaled(raw, golden["dpt.raw_self"]) <= 1e-5
    check_heads(heads, hooks, golden, "head.")


def test_linear_heads():
    golden = load("linear_head")
    tokens, grid = golden["tokens"][None], tuple(golden.settings["grid"])
    shape = replace(
        architecture(),
        dec_embed_dim=tokens.shape[-1],
        dec_num_heads=golden.settings["heads"],
        state_dec_num_heads=golden.settings["heads"],
        patch_size=golden.settings["patch"],
        head="linear",
    )
    heads = LinearHeads(shape)
    heads.load_state_dict({k: v.float() for k, v in golden.part("param.").items()}, strict=True)
    nothing = (tokens[:, 1:],) * 3
    check_heads(heads.requires_grad_(False), Hooks(nothing, tokens, grid), golden, "")


def read_out(heads, hooks):
    """Everything that heads say, by the names of the fixtures."""
    points, confidence = heads.camera_map(hooks)
    points_world, confidence_world = heads.world_map(hooks)
    return {
        "camera_pose": heads.camera_pose(hooks),
        "pts3d_self": points,
        "conf_self": confidence,
        "pts3d_world": points_world,
        "conf_world": confidence_world,
        "rgb": heads.colour_map(hooks),
    }


def check_heads(heads, hooks, golden, prefix):
    for name, value in read_out(heads, hooks).items():
        assert scaled(value[0], golden[prefix + name]) <= 1e-5, name


def views(golden):
    keys = ("view_image", "view_reset", "view_update")
    return list(zip(*(golden.settings[key] for key in keys)))


def check(found, golden, name, tolerance):
    """Compare where the fixture has this entry; returns whether it has."""
    if name not in golden:
        return False
    error = scaled(found, golden[name])
    assert error <= tolerance, f"{name}: {error:.2e}"
    return True


def check_sequence(name, forced):
    golden, network = load(name), cut3r()
    rule = RULES[golden.settings["rule"]]
    images, state = images_of(golden), begin(network)
    grid = tuple(side // network.architecture.patch_size for side in images.shape[-2:])
    tolerance, checked = 2e-5 if forced else 2e-4, set()
    for number, (image, reset, keep) in enumerate(views(golden)):
        encoded = network.encode(images[image][None])
        if not forced:
            check(encoded.tokens[0], golden, f"v{number}.enc", 8e-5)
        frame = Encoded(golden[f"v{number}.enc"][None], grid) if forced else encoded
        before, (kept, _) = state, step(network, state, frame, rule, bool(keep))
        state, seen = step(network, state, frame, rule, bool(keep), bool(reset))
        found = {
            "gfeat": frame.mean,
            "pose_in": seen.prior,
            "state_in": before.tokens,
            "state_cand": seen.candidate,
            "mask": seen.mask,
            "state_out": state.tokens,
            "state_out_before_reset": kept.tokens,
            "mem_in": before.memory[0],
            "mem_new": network.memory.write(frame.mean, before.memory, seen.hooks.pose)[0],
            "mem_out": state.memory[0],
            "pose_out": seen.hooks.pose,
            "hook1": seen.hooks.levels[1],
            "hook2": seen.hooks.levels[2],
            "hook3": seen.hooks.last,
        }
        found |= read_out(network.downstream_head, seen.hooks)
        for key, value in found.items():
            if check(value[0], golden, f"v{number}.{key}", tolerance):
                checked.add(key)
    return checked


SLOTS = ("seq_cut3r", "seq_ttt3r", "seq_ttsa3r")


@pytest.mark.parametrize("forced", [True, False], ids=["from features", "from images"])
@pytest.mark.parametrize("name", SLOTS)
def test_sequence(name, forced):
    checked = check_sequence(name, forced)
    assert {"pose_in", "state_cand", "mask", "mem_new", "camera_pose"} <= checked


@pytest.mark.parametrize("name", SLOTS[:2])
def test_mean_scores_need_no_score_matrix(name):
    """Mean over blocks, heads and keys; also where the rule does not use it."""
    golden, network = load(name), cut3r()
    grid = tuple(s // network.architecture.patch_size for s in golden["images_u8"].shape[-2:])
    for number in golden.numbers(r"v(\d+)\.logit_mean"):
        scores = MeanScores()
        frame = Encoded(golden[f"v{number}.enc"][None], grid)
        state, prior = batched(golden, f"v{number}.state_in", f"v{number}.pose_in")
        network.decode(state, frame, prior, scores)
        assert scaled(scores.mean[0], golden[f"v{number}.logit_mean"]) <= 2e-5


def test_parts_of_the_mask_of_ttsa3r():
    golden, network = load("seq_ttsa3r"), cut3r()
    grid = tuple(s // network.architecture.patch_size for s in golden["images_u8"].shape[-2:])
    numbers = golden.numbers(r"v(\d+)\.attn_mean_heads")
    assert numbers
    for number in numbers:
        frame = Encoded(golden[f"v{number}.enc"][None], grid)
        scores = ScoreMatrix()
        state, prior = batched(golden, f"v{number}.state_in", f"v{number}.pose_in")
        decoded = network.decode(state, frame, prior, scores)
        before = Seen(*batched(golden, f"v{number - 1}.enc", f"v{number - 1}.state_cand"))
        now = Seen(frame.tokens, decoded.candidate)
        found = {
            "dissimilarity": dissimilarity(before, now),
            "temporal_mask": temporal_mask(before, now),
            "spatial_mask": spatial_mask(scores.mean, before, now),
        }
        for key, value in found.items():
            assert scaled(value[0], golden[f"v{number}.{key}"]) <= 2e-5, (number, key)
        matrix = golden[f"v{number}.attn_mean_heads"]
        error = min(scaled(m, matrix) for m in (scores.mean[0], scores.mean[0].abs()))
        assert error <= 2e-5


def test_the_original_rule_reads_the_memory_after_a_reset():
    golden, network = load("seq_original_reset"), cut3r()
    images, state = images_of(load("seq_cut3r")), begin(network)
    for number, (image, reset, keep) in enumerate(views(golden)):
        frame = network.encode(images[image][None])
        state, seen = step(network, state, frame, RULES["cut3r"], bool(keep), bool(reset))
        state = replace(state, first=False)
        check(seen.prior[0], golden, f"v{number}.pose_in", 2e-4)
        pose = network.downstream_head.camera_pose(seen.hooks)[0]
        check(pose, golden, f"v{number}.camera_pose", 2e-4)


def test_revisiting_with_a_frozen_state():
    golden, network = load("seq_original_reset"), cut3r()
    images, state = images_of(load("seq_cut3r")), begin(network)
    numbers = golden.numbers(r"revisit\.v(\d+)\.")
    length = len(numbers) // 2
    for number in numbers:
        frame = network.encode(images[number % length][None])
        state, seen = step(network, state, frame, RULES["cut3r"], update=number < length)
        pose = network.downstream_head.camera_pose(seen.hooks)[0]
        assert scaled(pose, golden[f"revisit.v{number}.camera_pose"]) <= 2e-4


def fast_memory(dtype):
    weights, settings = load("mem3r_weights"), load("mem3r_weights").settings
    shape = architecture(
        pose_memory="fast_weights", lr_base=settings["lr_base"], decay=settings["gamma"]
    )
    assert (shape.dec_num_heads, shape.gate_width) == (settings["heads"], settings["gate_hidden"])
    memory = PoseFastWeights(shape)
    memory.load_state_dict({k: v.float() for k, v in weights.part("pose_memory.").items()})
    return memory.to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_fast_weights_of_the_pose_memory(dtype, tolerance):
    golden, memory = load("mem3r_unit"), fast_memory(dtype)
    weights = memory.initial(1)
    for t in range(golden.settings["steps"]):
        feature, pose = (golden[f"t{t}.{name}"][None].to(dtype) for name in ("g", "p"))
        reading = memory.reading(feature, weights)
        gradient = memory.gradient(reading, weights, pose)
        rates = memory.rates(feature)
        weights = update(weights, gradient, rates)
        found = {
            "q": reading.query,
            "y": reading.answer,
            "z": reading.prior,
            "objective": (reading.prior * pose).sum(-1)[:, None],
            "alpha": rates.keep,
            "eta": rates.step,
        }
        found |= {f"d{name}": value for name, value in gradient._asdict().items()}
        found |= {f"{name}_new": value for name, value in weights._asdict().items()}
        for key, value in found.items():
            expected = golden[f"t{t}.{key}"]
            assert scaled(value[0].reshape(expected.shape), expected) <= tolerance, f"t{t}.{key}"


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gradient_through_all_updates(dtype, tolerance):
    golden, memory = load("mem3r_unit"), fast_memory(dtype)
    steps = range(golden.settings["steps"])
    poses = torch.stack([golden[f"t{t}.p"] for t in steps]).to(dtype).requires_grad_()
    weights, loss = memory.initial(1), torch.zeros((), dtype=dtype)
    for t, target in zip(steps, golden["outer.c"].to(dtype)):
        feature = golden[f"t{t}.g"][None].to(dtype)
        loss = loss + (memory.read(feature, weights)[0] * target).sum()
        weights = memory.write(feature, weights, poses[t][None])
    loss.backward()
    assert scaled(loss.detach()[None], golden["outer.loss"]) <= tolerance
    assert scaled(poses.grad, golden["outer.grad_p"]) <= tolerance
    for name, value in memory.named_parameters():
        expected = golden[f"outer.grad.pose_memory.{name}"]
        assert scaled(value.grad, expected) <= tolerance, name


def test_closed_form_is_the_gradient_of_the_objective():
    golden, memory = load("mem3r_unit"), fast_memory(torch.float64)
    feature, pose = golden["t0.g"][None], golden["t0.p"][None]
    weights = PoseWeights(*(w.detach().requires_grad_() for w in memory.initial(1)))
    (memory.read(feature, weights) * pose).sum().backward()
    found = memory.gradient(memory.reading(feature, weights), weights, pose)
    for mine, theirs in zip(found, weights):
        assert scaled(mine, theirs.grad) <= 1e-12


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gate_of_the_state(dtype, tolerance):
    golden = load("mem3r_unit")
    network = Mem3R(mem3r().architecture)
    network.load_state_dict(mem3r().state_dict())
    gate = network.state_gate.to(dtype).requires_grad_(False)
    state, feature, candidate = (
        golden[f"gate.{name}"][None].to(dtype) for name in ("state", "g", "candidate")
    )
    share = gate(state, feature)
    masked = share * golden["gate.G"].to(dtype)[None, :, None]
    assert scaled(share[0], golden["gate.zeta"]) <= tolerance
    for z, name in ((share, "gate.out_plain"), (masked, "gate.out_G")):
        assert scaled((z * candidate + (1 - z) * state)[0], golden[name]) <= tolerance


@pytest.mark.parametrize("name", ["mem3r_seq_plain", "mem3r_seq_ttt3r"])
def test_sequence_with_fast_weights(name):
    golden, network = load(name), mem3r()
    rule = RULES[{"plain": "cut3r"}.get(golden.settings["rule"], golden.settings["rule"])]
    height, width = json.loads((FOLDER / "model_config.json").read_text())["image_hw"]
    patch = network.architecture.patch_size
    state, maps = begin(network), 0
    for number, (_, reset, keep) in enumerate(views(golden)):
        frame = Encoded(golden[f"v{number}.enc"][None], (height // patch, width // patch))
        unmasked = step(network, state, frame, rule)[1]
        state, seen = step(network, state, frame, rule, bool(keep), bool(reset))
        found = {
            "z": seen.prior[0],
            "p": seen.hooks.pose[0],
            "state_cand": seen.candidate[0],
            "G": unmasked.mask[0],
            "zeta_mean": seen.gate[0].mean(-1),
            "state_out": state.tokens[0],
            "objective": (seen.prior * seen.hooks.pose).sum(-1),
        }
        found |= {f"{k}_out": v[0] for k, v in zip(("w1", "w2", "w3"), state.memory)}
        for key, value in found.items():
            assert check(value, golden, f"v{number}.{key}", 1e-5), f"v{number}.{key} is absent"
        for key, value in read_out(network.downstream_head, seen.hooks).items():
            maps += check(value[0], golden, f"v{number}.{key}", 1e-5)
    assert maps >= len(views(golden))


@pytest.mark.parametrize("case", cases("preprocess", r"img(\d+)\.input_u8"))
def test_images_are_prepared_as_published(case):
    golden = load("preprocess")
    size = golden.settings["cases"][case]["size"]
    prepared = prepare(golden[f"img{case}.input_u8"].numpy(), size)
    assert torch.equal(torch.from_numpy(prepared.rgb), golden[f"img{case}.output_u8"])
    corner = golden[f"img{case}.net_input"]
    found = torch.from_numpy(network_input(prepared.rgb))[:, : corner.shape[1], : corner.shape[2]]
    assert scaled(found, corner) <= 1e-6


def test_loss_and_its_gradient():
    golden = load("losses")
    count = golden.settings["views"]
    names = ("pts3d_self", "conf_self", "pts3d_world", "conf_world", "camera_pose")
    leaves = [
        {name: golden[f"pred{v}.{name}"].clone().requires_grad_() for name in names}
        for v in range(count)
    ]
    targets = [
        view_target(
            golden[f"gt{v}.c2w"],
            golden["gt0.c2w"],
            golden[f"gt{v}.points_world"],
            golden[f"gt{v}.valid_mask"].bool(),
            golden[f"gt{v}.sky_mask"].bool(),
        )
        for v in range(count)
    ]
    predictions = [ViewPrediction(*leaf.values()) for leaf in leaves]
    found = objective(targets, predictions, golden["is_metric"].bool())
    found.total.backward()
    for v in range(count):
        assert scaled(found.points_self[v].detach(), golden[f"loss.self{v + 1}"]) <= 1e-5
        assert scaled(found.points_world[v].detach(), golden[f"loss.world{v + 1}"]) <= 1e-5
    assert scaled(found.pose.detach(), golden["loss.pose"]) <= 1e-5
    assert scaled(found.total.detach(), golden["loss.conf_plus_pose"]) <= 1e-5
    for v, leaf in enumerate(leaves):
        for name, value in leaf.items():
            assert scaled(value.grad, golden[f"grad{v}.{name}"]) <= 1e-5, f"{v}.{name}"
