"""Saving now and then waits for the chunk in flight, and never twice."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS is absent")

from scal3r_ros.files import SaveFailed  # noqa: E402
from scal3r_ros.nodes.base.node_config import NodeConfig  # noqa: E402
from scal3r_ros.nodes.mapping.commands import MapCommands  # noqa: E402
from scal3r_ros.options import from_dict  # noqa: E402


class BusyWorker:
    """A worker whose commands wait until `finish`."""

    def __init__(self):
        self.mapper = SimpleNamespace(map_revision=1, next_frame_id=10, mode="mapping")
        self.waiting = []

    def submit(self, command, reads=False):
        self.waiting.append(Future())
        return self.waiting[-1]


def test_at_most_one_autosave_waits_behind_a_long_chunk(tmp_path):
    worker = BusyWorker()
    autosave = SimpleNamespace(period=1e-9, path=str(tmp_path), overwrite=False)
    session = SimpleNamespace(config=SimpleNamespace(autosave=autosave), worker=worker)
    commands = MapCommands(session)
    for _ in range(5):
        commands.autosave_if_due()
    assert len(worker.waiting) == 1
    worker.waiting[0].set_result({})
    commands.autosave_if_due()
    assert len(worker.waiting) == 2, "the map has changed since"


@pytest.mark.parametrize(("path", "period"), [("", 60.0), ("map", 0.0)])
def test_nothing_is_saved_by_itself_without_a_path_or_a_period(path, period):
    worker = BusyWorker()
    autosave = SimpleNamespace(period=period, path=path, overwrite=False)
    session = SimpleNamespace(config=SimpleNamespace(autosave=autosave), worker=worker)
    commands = MapCommands(session)
    commands._saved_at = -1e9
    commands.autosave_if_due()
    assert worker.waiting == []


def test_only_who_asks_for_it_saves_beside_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    saved = []
    mapper = SimpleNamespace(
        map_revision=1, next_frame_id=10, save=lambda to: saved.append(to) or []
    )
    session = SimpleNamespace(config=NodeConfig(), worker=None)
    commands = MapCommands(session)
    with pytest.raises(SaveFailed, match=r"notes\.txt and no map.*autosave\.overwrite"):
        commands._save(mapper, tmp_path)
    session.config = from_dict(NodeConfig, {"autosave.overwrite": True})
    commands._save(mapper, tmp_path)
    assert saved == [tmp_path]
