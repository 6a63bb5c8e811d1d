"""Laws of the three steps of the memory unit, each alone."""

import pytest
import torch

from scal3r_ros.networks.fast_weights import (
    FastWeights,
    apply_weights,
    gradient,
    newton_schulz,
    update,
)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradient_is_what_autograd_finds(heads):
    torch.manual_seed(0)
    k, v = torch.randn(heads, 7, 8, dtype=torch.double), torch.randn(heads, 7, 8).double()
    rates = torch.rand(heads, 7, 3).double()
    weights = FastWeights(
        torch.randn(heads, 8, 12).double(),
        torch.randn(heads, 12, 8).double(),
        torch.randn(heads, 8, 12).double(),
    )
    found = gradient(weights, k, v, rates)
    for n, w in enumerate(weights):
        w.requires_grad_()
        objective = (rates[..., n] * (apply_weights(weights, k) * v).sum(-1)).sum()
        (expected,) = torch.autograd.grad(objective, w)
        w.requires_grad_(False)
        torch.testing.assert_close(found[n], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_update_sees_the_direction_of_the_gradient_and_keeps_column_norms(dtype):
    torch.manual_seed(0)
    weights = FastWeights(torch.randn(2, 8, 32), torch.randn(2, 32, 8), torch.randn(2, 8, 32))
    g = FastWeights(*(torch.randn_like(w) for w in weights))
    adapted = update(weights, g, 5, dtype)
    for a, b in zip(adapted, update(weights, g.scaled(64.0), 5, dtype)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, w in zip(adapted, weights):
        assert not torch.allclose(a, w, atol=1e-2)
        torch.testing.assert_close(a.norm(dim=1), w.norm(dim=1), rtol=1e-4, atol=0)


def test_orthogonalisation_evens_out_singular_values():
    torch.manual_seed(0)
    for shape in ((1, 16, 64), (1, 64, 16), (1, 32, 32)):
        values = torch.linalg.svdvals(newton_schulz(torch.randn(shape), 5, torch.float32))
        strong = values[values > 0.3]
        assert len(strong) >= 0.8 * values.numel()
        assert 0.6 < strong.min() and strong.max() < 1.3
