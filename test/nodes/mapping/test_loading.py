"""What is opened for the node, and what is refused before anything is."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.loading import check_prerequisites, in_own_process, open_reconstructor
from scal3r_ros.options import from_dict
from scal3r_ros.reconstruct.process import ProcessReconstructor

pytestmark = pytest.mark.ros


def test_absent_weights_are_refused_unless_they_may_be_fetched():
    named = {"model.checkpoint": "/nowhere/scal3r.pt"}
    with pytest.raises(ValueError, match="/nowhere/scal3r.pt does not exist.*allow_download"):
        check_prerequisites(from_dict(NodeConfig, named))
    check_prerequisites(from_dict(NodeConfig, {**named, "model.allow_download": True}))


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_the_network_runs_in_the_process_that_is_asked_for(node, mode):
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    options = {"worker.mode": mode, "model.reconstructor": "sfm"}
    reconstructor = open_reconstructor(node, from_dict(NodeConfig, options))
    try:
        assert isinstance(reconstructor, ProcessReconstructor) == (mode == "process")
    finally:
        if mode == "process":
            reconstructor.close()


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"model.reconstructor": "sfm", "model.device": "cuda"}, True),
        ({"model.reconstructor": "scal3r", "model.device": "cpu"}, True),
        ({"model.reconstructor": "scal3r", "model.device": "cuda"}, False),
        ({"model.reconstructor": "sfm", "worker.mode": "thread"}, False),
    ],
)
def test_what_would_hold_the_interpreter_gets_its_own_process(options, own):
    assert in_own_process(from_dict(NodeConfig, options)) == own
