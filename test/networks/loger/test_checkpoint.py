"""Weights of LoGeR: both variants from both kinds of file, the yaml beside them, and what is
refused."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import save_file
from small_loger import SMALL, SMALL_STAR, random_frames, random_loger

from scal3r_ros.networks.checkpoint import CheckpointError
from scal3r_ros.networks.loger.checkpoint import load_network, read_settings, save_checkpoint
from scal3r_ros.networks.loger.state import WindowState

SETTINGS = {
    "ttt_insert_after": [0, 2, 4],
    "attn_insert_after": [2, 4],
    "ttt_head_dim": 16,
    "ttt_inter_multi": 2,
}


@pytest.fixture(params=[("loger", SMALL), ("loger-star", SMALL_STAR)], ids=["loger", "star"])
def variant(request):
    name, architecture = request.param
    return name, architecture, random_loger(architecture)


def output(network):
    return network(random_frames(3)[None], 4, 1)[0].local_points


def test_released_forms_of_a_file(variant, tmp_path):
    name, architecture, network = variant
    state = network.state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"model_state_dict": wrapped, "step": 3}, tmp_path / "wrapped.pt")
    save_file(state, tmp_path / "plain.safetensors")
    for path in tmp_path.iterdir():
        loaded = load_network(path, name, architecture=architecture).network
        assert loaded.architecture == architecture
        assert torch.equal(output(loaded), output(network))
        assert not any(p.requires_grad for p in loaded.parameters())


def test_own_files_tell_their_architecture(variant, tmp_path):
    name, architecture, network = variant
    save_checkpoint(network.state_dict(), architecture, tmp_path, "net", shard_bytes=60_000)
    loaded = load_network(tmp_path, name)
    assert loaded.network.architecture == architecture
    assert torch.equal(output(loaded.network), output(network))


def test_the_other_variant_is_refused(variant, tmp_path):
    name, architecture, network = variant
    torch.save(network.state_dict(), tmp_path / "net.pt")
    other = {"loger": "loger-star", "loger-star": "loger"}[name]
    with pytest.raises(CheckpointError, match=f"weights of {name}, model.reconstructor is {other}"):
        load_network(tmp_path / "net.pt", other, architecture=architecture)


def test_missing_and_foreign_tensors_are_listed(variant, tmp_path):
    name, architecture, network = variant
    state = network.state_dict() | {"spare.weight": torch.zeros(1)}
    del state["ttt_layers.0.to_qkv_stack.0.weight"]
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError) as caught:
        load_network(tmp_path / "net.pt", name, architecture=architecture)
    assert "1 missing: ttt_layers.0.to_qkv_stack.0.weight" in str(caught.value)
    assert "1 unexpected: spare.weight" in str(caught.value)


@pytest.mark.parametrize("place", ["model", "top"])
def test_se3_is_read_in_both_places(tmp_path, place):
    state = random_loger(SMALL_STAR).state_dict()
    torch.save(state, tmp_path / "latest.pt")
    plain = replace(SMALL_STAR, se3=False)
    content = {"model": dict(SETTINGS)}
    (content["model"] if place == "model" else content)["se3"] = True
    (tmp_path / "original.yaml").write_text(yaml.safe_dump(content))
    loaded = load_network(tmp_path / "latest.pt", "loger-star", architecture=plain)
    assert loaded.network.architecture.se3
    content["se3"], content["model"]["se3"] = True, False
    (tmp_path / "original.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match="se3 is False and True"):
        load_network(tmp_path / "latest.pt", "loger-star", architecture=plain)


@pytest.mark.parametrize(
    "name, value, found",
    [
        ("ttt_pre_norm", False, "True"),
        ("ttt_insert_after", [0, 2], "3"),
        ("attn_insert_after", [0, 2, 4], "2"),
        ("ttt_head_dim", 8, "16"),
        ("ttt_inter_multi", None, "2"),
    ],
)
def test_a_yaml_that_contradicts_the_tensors(tmp_path, name, value, found):
    torch.save(random_loger().state_dict(), tmp_path / "latest.pt")
    settings = SETTINGS | {"ttt_pre_norm": True}
    path = tmp_path / "latest.yaml"
    path.write_text(yaml.safe_dump({"model": settings}))
    load_network(tmp_path / "latest.pt", "loger", architecture=SMALL)
    settings["ttt_inter_multi"] = 4
    if value is not None:
        settings |= {"ttt_inter_multi": 2, name: value}
    path.write_text(yaml.safe_dump({"model": settings}))
    with pytest.raises(CheckpointError, match=f"latest.yaml contradicts.*{name}.*show {found}"):
        load_network(tmp_path / "latest.pt", "loger", architecture=SMALL)


def test_which_yaml_is_meant(tmp_path):
    checkpoint = tmp_path / "latest.pt"
    assert read_settings(checkpoint) is None
    (tmp_path / "robot.yaml").write_text("chunk: {size: 3}\n")
    (tmp_path / "list.yml").write_text("- 1\n")
    assert read_settings(checkpoint) is None
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({"model": SETTINGS}))
    with pytest.raises(CheckpointError, match="several yaml files"):
        read_settings(checkpoint)
    (tmp_path / "latest.yaml").write_text(yaml.safe_dump({"model": SETTINGS | {"se3": True}}))
    path, values = read_settings(checkpoint)
    assert path.name == "latest.yaml" and values == SETTINGS | {"se3": True}
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match=r"broken\.yaml.*no readable YAML"):
        read_settings(checkpoint)


def test_bad_windows_and_images_are_refused():
    network = random_loger()
    images = random_frames(5)[None]
    for window, overlap in ((3, 3), (4, -1)):
        with pytest.raises(ValueError, match="set chunk.size to at least chunk.overlap"):
            network(images[:, :2], window, overlap)
    with pytest.raises(ValueError, match="5 frames do not fit a window of 4"):
        network(images, 4, 1)
    cases = {
        "28 x 40 pixels do not split into patches of 14": torch.zeros(1, 3, 28, 40),
        "found torch.int64": torch.zeros(1, 3, 28, 42, dtype=torch.int64),
        "at least one frame": torch.zeros(0, 3, 28, 42),
        "without NaN": torch.full((1, 3, 28, 42), torch.nan),
        "found 0.0 to 255.0": torch.full((1, 3, 28, 42), 255.0),
    }
    cases["found 0.0 to 255.0"][0, 0, 0, 0] = 0.0
    for text, bad in cases.items():
        with pytest.raises(ValueError, match=text):
            network.encode(bad)


def test_unusable_sizes_are_refused():
    cases = {
        "decoder_depth must be even": {"decoder_depth": 5},
        "must name even decoder blocks": {"ttt_insert_after": (0, 3)},
        "must rise": {"attn_insert_after": (4, 2)},
        "must split width": {"decoder_num_heads": 3},
        "must divide embed_dim": {"ttt_head_dim": 5},
        "multiple of patch_size": {"pos_embed_image_size": 50},
    }
    for text, change in cases.items():
        with pytest.raises(ValueError, match=text):
            replace(SMALL, **change)
    assert WindowState().nbytes == 8
