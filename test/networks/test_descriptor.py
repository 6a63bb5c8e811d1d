"""Frame descriptors: unit vectors that know the patches' covariance and not their order."""

import numpy as np
import torch

from scal3r_ros.networks.descriptor import frame_descriptors


def test_descriptor_against_numpy_covariance():
    tokens = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(0))
    found = frame_descriptors(tokens).numpy()
    for frame in range(3):
        centred = tokens[frame].numpy() - tokens[frame].numpy().mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        expected = np.cov(centred.T, ddof=0) + np.outer(centred.mean(0), centred.mean(0))
        expected = expected[np.triu_indices(6)]
        expected = np.sign(expected) * np.sqrt(np.abs(expected))
        np.testing.assert_allclose(found[frame], expected / np.linalg.norm(expected), atol=1e-5)


def test_order_of_patches_and_size_of_tokens_do_not_matter():
    tokens = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(1))
    shuffled = tokens[:, torch.randperm(40, generator=torch.Generator().manual_seed(2))]
    torch.testing.assert_close(frame_descriptors(3.0 * shuffled), frame_descriptors(tokens))


def test_long_tokens_give_short_descriptors_and_the_same_each_time():
    tokens = torch.randn(4, 30, 1024, generator=torch.Generator().manual_seed(3))
    found = frame_descriptors(tokens)
    assert found.shape == (4, 64 * 65 // 2)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert torch.equal(found, frame_descriptors(tokens))


def test_a_changed_view_stays_nearer_than_another_scene():
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(5, 32, 32, generator=generator)
    scenes = torch.randn(5, 200, 32, generator=generator) @ mixing
    views = scenes[:, 40:] + 0.2 * torch.randn(5, 160, 32, generator=generator)
    likeness = frame_descriptors(scenes) @ frame_descriptors(views).T
    assert torch.equal(likeness.argmax(dim=1), torch.arange(5))
