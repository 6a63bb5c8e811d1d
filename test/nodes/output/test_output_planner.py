"""What is published after a chunk does not grow with the run."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is absent")
from oracle import OracleReconstructor, drive  # noqa: E402

from scal3r_ros.nodes.base.node_config import NodeConfig  # noqa: E402
from scal3r_ros.nodes.mapping.worker import Output  # noqa: E402
from scal3r_ros.nodes.output.output_planner import MOST_MARKS, OutputPlanner, graph_arrays  # noqa: E402
from scal3r_ros.options import from_dict  # noqa: E402
from scal3r_ros.pipeline.map_change import GraphView  # noqa: E402
from scal3r_ros.pipeline.mapper import Mapper  # noqa: E402

OPTIONS = {"chunk.size": 12, "chunk.overlap": 6, "loop.enabled": False, "publish.path_poses": 10}


def test_the_path_holds_the_newest_poses_and_all_when_nothing_follows_soon():
    config, city = from_dict(NodeConfig, OPTIONS), drive(width=32, height=12)
    said = []
    planner = OutputPlanner(
        config,
        SimpleNamespace(put=said.append),
        lambda: "camera",
        lambda: None,
        lambda: 0,
        lambda mapper: None,
    )
    mapper = Mapper(config, OracleReconstructor(city))
    for i in range(36):
        updates = tuple(mapper.add(city.frame(i)))
        if updates:
            planner(Output(mapper, updates))
            path = [pose.frame_id for pose in said[-1].trajectory]
            assert path == list(range(i - 9, i + 1))
            newest = mapper.trajectory()[-1]
            assert (said[-1].trajectory[-1].T_map_camera == newest.T_map_camera).all()
    assert len(said) == 5
    assert sum(item.graph is not None for item in said) < len(said), "the whole graph now and then"
    planner(Output(mapper, tuple(mapper.flush()), final=True))
    assert [pose.frame_id for pose in said[-1].trajectory] == list(range(36))
    assert len(said[-1].graph[0]) == 5 and said[-1].connected
    assert np.isfinite([pose.covariance for pose in said[-1].trajectory]).all()


@pytest.mark.parametrize(("growth", "sent"), [(0.0, 4), (100.0, 1)])
def test_a_map_that_nobody_hears_is_renewed_when_it_has_grown_by_so_much(growth, sent):
    options = {**OPTIONS, "publish.map_interval": 0.1, "publish.map_growth": growth}
    config, city = from_dict(NodeConfig, options), drive(width=32, height=12)
    said = []
    planner = OutputPlanner(
        config,
        SimpleNamespace(put=said.append),
        lambda: "camera",
        lambda: None,
        lambda: 0,
        lambda mapper: None,
    )
    mapper = Mapper(config, OracleReconstructor(city))
    for i in range(30):
        if updates := tuple(mapper.add(city.frame(i))):
            time.sleep(config.publish.map_interval)
            planner(Output(mapper, updates))
    assert len(said) == 4 and said[0].cloud is not None
    assert sum(item.cloud is not None for item in said) == sent


def test_the_drawing_of_the_graph_is_bounded():
    count = 5 * MOST_MARKS // 2
    positions = np.stack([np.arange(count), np.zeros(count), np.zeros(count)], axis=1)
    chain = [(i, i + 1, "sequence") for i in range(count - 1)]
    loops = [(0, i, "loop") for i in range(10, count)]
    graph = GraphView(tuple(range(count)), positions, (*chain, *loops), (0,) * count)
    nodes, drawn, tied = graph_arrays(SimpleNamespace(graph=lambda: graph))
    assert 0.8 * MOST_MARKS < len(nodes) <= MOST_MARKS and len(drawn) <= MOST_MARKS
    assert np.ptp(nodes[:, 0]) > 0.99 * count, "the whole run is drawn"
    assert len(tied) == MOST_MARKS and tied[-1][1][0] == count - 1, "the newest loops"
