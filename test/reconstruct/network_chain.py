"""A network of random weights, small enough for many chunks, and chunks for it."""

import numpy as np
import torch

from scal3r_ros.config import MemoryConfig, ModelConfig
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.checkpoint import save_checkpoint
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.reconstruct.scal3r.reconstructor import Scal3RReconstructor
from scal3r_ros.reconstruct.scal3r.setup import open_scal3r
from scal3r_ros.records import Chunk, Frame

SIZES = Architecture(
    image_size_of_pos_embed=42,
    embed_dim=32,
    vit_depth=1,
    vit_num_heads=2,
    depth=3,
    num_heads=2,
    layer_scale=1.0,
    intermediate_layers=(0, 1, 2, 2),
    ttt_layers=(1, 2),
    camera_trunk_depth=1,
    camera_num_heads=2,
    dense_head="linear",
    image_size=56,
)


def save_network(folder) -> None:
    """A random checkpoint whose memory matters."""
    torch.manual_seed(0)
    network = Scal3R(SIZES)
    for layer in SIZES.ttt_layers:
        torch.nn.init.normal_(network.agg_regator.memory_unit(layer).proj.weight, std=0.3)
    save_checkpoint(network.state_dict(), SIZES, folder, "net")


def reconstructor(folder, **memory) -> Scal3RReconstructor:
    return open_scal3r(ModelConfig(checkpoint=str(folder), device="cpu"), MemoryConfig(**memory))


def frames(count, start=0, size=(48, 64)):
    made = []
    for i in range(start, start + count):
        rng = np.random.default_rng(i)
        made.append(Frame(i, i * 100, rng.integers(0, 256, (*size, 3), dtype=np.uint8)))
    return tuple(made)


def chain(lengths=(5, 5, 4), stride=3):
    return [
        Chunk(k, 0, frames(n, k * stride), tuple(range(k * stride, k * stride + 2)) if k else ())
        for k, n in enumerate(lengths)
    ]


def assert_same(found, expected, tolerance=0.0):
    assert found.frame_ids == expected.frame_ids
    for name in ("depth", "confidence", "T_chunk_camera", "intrinsics"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=tolerance, atol=tolerance
        )
