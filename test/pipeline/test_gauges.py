"""A stream of LoGeR's windows through the mapper is what the release merges offline."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from loger_chain import loger, save_loger  # noqa: E402
from network_chain import frames  # noqa: E402
from small_loger import SMALL, SMALL_STAR  # noqa: E402

from scal3r_ros.cli import main  # noqa: E402
from scal3r_ros.config import Config  # noqa: E402
from scal3r_ros.mapping.chunking import partition  # noqa: E402
from scal3r_ros.networks.loger.checkpoint import load_network  # noqa: E402
from scal3r_ros.networks.loger.merge import as_predicted, by_block, merged, rigid  # noqa: E402
from scal3r_ros.networks.loger.network import Prediction  # noqa: E402
from scal3r_ros.networks.loger.state import WindowState  # noqa: E402
from scal3r_ros.options import from_dict  # noqa: E402
from scal3r_ros.pipeline.mapper import Mapper  # noqa: E402
from scal3r_ros.reconstruct.loger.images import prepare_image, target_size  # noqa: E402

FRAMES, SIZE, OVERLAP = 13, 4, 2


@pytest.fixture(scope="module", params=["loger", "loger-star"])
def weights(request, tmp_path_factory):
    architecture = {"loger": SMALL, "loger-star": SMALL_STAR}[request.param]
    return request.param, save_loger(tmp_path_factory.mktemp(request.param), architecture)


def mapper(weights, reset_every):
    name, checkpoint = weights
    options = {
        "chunk": {"size": SIZE, "overlap": OVERLAP},
        "loop": {"enabled": False},
        "map": {"alignment": "none"},
    }
    reconstructor = loger(checkpoint, SIZE, OVERLAP, reset_every, reconstructor=name)
    return Mapper(from_dict(Config, options), reconstructor)


def released(weights, reset_every):
    """The network's own windows, merged as the release does."""
    name, checkpoint = weights
    network, state, windows = load_network(checkpoint, name).network, WindowState(), []
    target = target_size(*frames(1)[0].rgb.shape[:2], SMALL.pixel_limit, SMALL.patch_size)
    prepared = [np.array(prepare_image(frame.rgb, target)) for frame in frames(FRAMES)]
    images = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2)
    spans = partition(FRAMES, SIZE, OVERLAP)
    with torch.inference_mode():
        for span in spans:
            chunk = images[span.start : span.stop][None]
            raw, state = network(chunk, SIZE, OVERLAP, state.before_next(reset_every))
            windows.append(Prediction(*(x[0] for x in vars(raw).values())))
    if name == "loger-star":
        places = rigid(windows, spans)
    elif reset_every:
        places = by_block(windows, spans, reset_every)
    else:
        places = as_predicted(windows, spans)
    return merged(windows, spans, places).canonical().poses.numpy()


def poses_of(mapper):
    poses = mapper.live_map.poses()
    T_map_camera = np.stack([pose.T_map_camera for pose in poses])
    assert [pose.frame_id for pose in poses] == list(range(FRAMES))
    return np.linalg.inv(T_map_camera[0]) @ T_map_camera


@pytest.mark.parametrize("reset_every", [0, 2])
def test_the_stream_is_the_released_merge(weights, reset_every):
    streamed = mapper(weights, reset_every)
    events = []
    for frame in frames(FRAMES):
        events += [event for update in streamed.add(frame) for event in update.events]
    streamed.flush()
    np.testing.assert_allclose(poses_of(streamed), released(weights, reset_every), atol=1e-4)
    told = {event.name for event in events}
    if weights[0] == "loger":  # a random one keeps no gauge, and its overlaps say so
        assert "gauge_disagrees" in told
    assert not told & {"new_part", "alignment_failed", "chunk_failed"}
    assert len(streamed.live_map.graph.edges) == 5


def test_a_saved_map_goes_on_as_if_it_had_not_stopped(weights, tmp_path):
    whole, first = mapper(weights, 2), mapper(weights, 2)
    for frame in frames(FRAMES):
        whole.add(frame)
    for frame in frames(7):
        first.add(frame)
    first.save(tmp_path)
    second = mapper(weights, 2)
    second.load(tmp_path)
    for frame in frames(FRAMES - 7, 7):
        second.add(frame)
    whole.flush()
    second.flush()
    np.testing.assert_array_equal(poses_of(second), poses_of(whole))


def test_the_command_line_maps_a_bag_with_it(weights, tmp_path):
    name, checkpoint = weights
    demo = Path(__file__).resolve().parents[2] / "demo" / "loop_room"
    options = ["gate.stride=12", "chunk.size=6", "chunk.overlap=2", "loop.window=4"]
    arguments = ["reconstruct", str(demo), "--out", str(tmp_path), "--quiet"]
    arguments += ["--reconstructor", name, "--checkpoint", checkpoint, "--set", *options]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["reconstructor"] == name
    lines = (tmp_path / "trajectory.txt").read_text().splitlines()
    poses = [line for line in lines if not line.startswith("#")]
    assert len(poses) == 30, "every twelfth of 360 frames"
    assert (tmp_path / "map.ply").stat().st_size > 1000
