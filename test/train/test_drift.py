"""Drift along a tour, from predictions whose errors are known."""

import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.networks.scal3r.network import Prediction  # noqa: E402
from scal3r_ros.train.drift import calibration, chunks_of_tour, measure_drift  # noqa: E402
from scal3r_ros.train.losses import make_targets  # noqa: E402
from scal3r_ros.train.worlds.clips import ClipBatch  # noqa: E402


@pytest.fixture
def tour():
    """A circle of 28 frames: five chunks."""
    angle = torch.linspace(0, 5, 28)
    T = torch.eye(4).repeat(28, 1, 1)
    T[:, 0, 0], T[:, 0, 2] = angle.cos(), angle.sin()
    T[:, 2, 0], T[:, 2, 2] = -angle.sin(), angle.cos()
    T[:, 0, 3], T[:, 2, 3] = 3 * angle.cos(), -3 * angle.sin()
    depth = 2 + torch.rand(1, 28, 6, 8, generator=torch.Generator().manual_seed(0))
    solid = torch.ones_like(depth, dtype=torch.bool)
    return ClipBatch(torch.zeros(1, 28, 3, 6, 8), depth, solid, T[None], torch.tensor([7.0]))


def predicted(tour, units):
    """The truth of every chunk in a unit of its own."""
    chunks = chunks_of_tour(tour)
    targets = [make_targets(c, torch.tensor([u])) for c, u in zip(chunks, units)]
    ones = torch.ones_like(targets[0].log_depth)
    return chunks, [Prediction(t.encoding[None], t.log_depth.exp(), ones) for t in targets]


def test_the_truth_does_not_drift(tour):
    chunks, predictions = predicted(tour, [2.0] * 5)
    drift = measure_drift(predictions, chunks)
    assert drift.scale == pytest.approx(0, abs=1e-5)
    assert drift.turn == pytest.approx(0, abs=0.1)
    assert drift.ate_sim3 == pytest.approx(0, abs=1e-3)
    assert drift.ate_se3 == pytest.approx(0, abs=1e-3)


def test_similarities_undo_what_rigid_joints_suffer_from(tour):
    """Scales that grow by a fifth from chunk to chunk."""
    chunks, predictions = predicted(tour, [1.2**i for i in range(5)])
    drift = measure_drift(predictions, chunks)
    assert drift.scale == pytest.approx(0.1823, abs=1e-3)
    assert drift.ate_sim3 == pytest.approx(0, abs=1e-3)
    assert drift.ate_se3 > 2.0


def test_a_confidence_that_knows_the_error_is_calibrated():
    error = torch.linspace(0.02, 0.4, 1000)
    rows = calibration(torch.stack([0.5 / error, error], -1)).splitlines()[2:]
    cells = [[float(cell) for cell in row.strip("| ").split("|")] for row in rows]
    assert len(cells) == 10
    assert all(claimed == pytest.approx(found, abs=0.01) for _, claimed, found in cells)
    assert [c[0] for c in cells] == sorted(c[0] for c in cells)
