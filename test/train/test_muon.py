"""Muon against what it is defined by: orthogonal updates of the usual size."""

from copy import deepcopy

import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.train.muon import Muon  # noqa: E402


def moved(start, gradients, **options):
    """What some steps add to a matrix."""
    parameter = torch.nn.Parameter(start.clone())
    optimizer = Muon([{"params": [parameter], **options.pop("group", {})}], **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach() - start


@pytest.mark.parametrize("shape", [(12, 12), (12, 40), (40, 12)])
def test_a_step_moves_along_all_directions_of_the_gradient_alike(shape):
    """The singular vectors of the gradient stay, its singular values become one, and the size is
    that of Adam: 0.2 of the rate per entry."""
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    step = -moved(torch.zeros(shape), [gradient], lr=0.01)
    u, s, vt = torch.linalg.svd(gradient, full_matrices=False)
    inside = torch.diag(u.T @ step @ vt.T) / (0.01 * 0.2 * max(shape) ** 0.5)
    assert 0.6 < inside.min() and inside.max() < 1.3
    assert float((step - u @ torch.diag(torch.diag(u.T @ step @ vt.T)) @ vt).abs().max()) < 1e-4
    per_entry = step.square().mean().sqrt() / 0.01
    assert 0.1 < per_entry < 0.25


def test_stacked_matrices_move_as_they_would_alone():
    generator = torch.Generator().manual_seed(2)
    start, gradient = (torch.randn(24, 8, generator=generator) for _ in range(2))
    together = moved(start, [gradient] * 2, lr=0.1, group={"stacked": 3})
    alone = [moved(s, [g] * 2, lr=0.1) for s, g in zip(start.chunk(3), gradient.chunk(3))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_weights_without_a_gradient_stay_and_others_decay():
    still, other = (torch.nn.Parameter(torch.eye(4)) for _ in range(2))
    other.grad = torch.zeros(4, 4)
    Muon([still, other], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(still.detach(), torch.eye(4))
    assert torch.allclose(other.detach(), 0.95 * torch.eye(4))


def test_it_fits_a_linear_map_and_goes_on_where_it_stopped():
    generator = torch.Generator().manual_seed(3)
    truth, inputs = (
        torch.randn(6, 10, generator=generator),
        torch.randn(50, 10, generator=generator),
    )

    def train(weight, optimizer, steps):
        for i in range(steps):
            optimizer.param_groups[0]["lr"] = 1.0 / (1 + i)
            optimizer.zero_grad()
            (inputs @ (weight - truth).T).square().mean().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.zeros(6, 10))
    optimizer = Muon([weight])
    before = float((inputs @ truth.T).square().mean())
    train(weight, optimizer, 400)
    assert float((inputs @ (weight.detach() - truth).T).square().mean()) < 0.02 * before
    copy = torch.nn.Parameter(weight.detach().clone())
    other = Muon([copy])
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    train(weight, optimizer, 3)
    train(copy, other, 3)
    assert torch.equal(weight.detach(), copy.detach())
