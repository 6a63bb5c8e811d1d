"""A trained network with another encoder: everything behind the encoder is kept.

    python -m scal3r_ros.train.transplant CHECKPOINT OUT --cache FOLDER

The new encoder's linear layer starts as the best linear prediction of the old encoder's tokens from
the new features, so that the rest, which took hours to train, works from the first step on.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scal3r_ros.networks.feature_encoder import FeatureEncoder
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.checkpoint import load_network, save_checkpoint
from scal3r_ros.networks.scal3r.guided_head import GuidedHead
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.networks.xfeat import read_weights, weights_file
from scal3r_ros.train.clip_cache import ClipCache
from scal3r_ros.train.schedule import SEEING

log = logging.getLogger(__name__)

_RIDGE = 1e-3
"""Share of the mean variance of the features that is added to all of them in the fit."""
_KEPT = ("agg_regator.", "cam_decoder.")


@torch.no_grad()
def with_feature_encoder(old: Scal3R, architecture: Architecture, images: Tensor) -> Scal3R:
    """`old` with the encoder and the dense head of `architecture`; images: (N, 3, H, W) in [0, 1]
    to fit the new tokens to the old ones, of the size for the new network."""
    kept = {"patch_size", "encoder", "dense_head", "image_size", "image_size_of_pos_embed"}
    changed = {name: getattr(architecture, name) for name in kept}
    new = Scal3R(replace(old.architecture, **changed), old.numerics)
    state = {
        key: value
        for key, value in old.state_dict().items()
        if key.startswith(_KEPT) and ".patch_embed." not in key
    }
    new.load_state_dict(state, strict=False)
    encoder = new.agg_regator.patch_embed
    encoder.backbone.read_xfeat(read_weights(weights_file()))
    _fit_tokens(old, new, encoder, images)
    if isinstance(new.dpt_decoder, GuidedHead):
        _fit_head(old, new.dpt_decoder)
    return new


def _fit_tokens(old: Scal3R, new: Scal3R, encoder: FeatureEncoder, images: Tensor) -> None:
    grid, width = new.grid(images), new.architecture.embed_dim
    size = tuple(n * old.architecture.patch_size for n in grid)
    small = F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    wanted = old.encode(small)
    encoder.pos_embed.zero_()
    seen: list[Tensor] = []
    hook = encoder.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    new.encode(images)
    hook.remove()
    found = torch.cat(seen)
    mean_found, mean_wanted = found.mean(0), wanted.mean(0)
    x, y = (found - mean_found).flatten(0, 1), (wanted - mean_wanted).flatten(0, 1)
    square = x.T @ x
    ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square))
    weight = torch.linalg.solve(square + ridge, x.T @ y)
    encoder.proj.weight.copy_(weight.T)
    encoder.proj.bias.zero_()
    place = (mean_wanted - mean_found @ weight).T.unflatten(1, grid)[None]
    side = (encoder.side, encoder.side)
    place = F.interpolate(place, size=side, mode="bilinear", align_corners=False)
    encoder.pos_embed.copy_(place.flatten(2).transpose(1, 2).view(1, -1, width))
    left = ((y - x @ weight) ** 2).mean() / (y**2).mean()
    log.info("%.0f %% of the tokens' variance is explained", 100 * (1 - float(left)))


def _fit_head(old: Scal3R, head: GuidedHead) -> None:
    """The old linear head's mean over quarters of a patch as coarse values, no corrections."""
    linear, patch = old.dpt_decoder.linear, old.architecture.patch_size
    head.norm.load_state_dict(old.dpt_decoder.norm.state_dict())
    for own, theirs in ((head.coarse.weight, linear.weight), (head.coarse.bias, linear.bias)):
        cells = theirs.view(head.out, patch, patch, -1).permute(0, 3, 1, 2)
        cells = F.adaptive_avg_pool2d(cells, 2).permute(0, 2, 3, 1)
        own.copy_(cells.reshape(own.shape))


def main() -> int:
    """Write the network that training goes on with."""
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="folder for the new checkpoint")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered worlds")
    parser.add_argument("--worlds", type=int, default=14)
    arguments = parser.parse_args()
    width = SEEING.image_size
    cache, generator = ClipCache(arguments.cache), torch.Generator().manual_seed(0)
    images = [
        cache.draw(lambda total, _: torch.arange(0, total, 5), (width * 3 // 4, width), generator)
        for _ in range(arguments.worlds)
    ]
    old = load_network(arguments.checkpoint).network
    new = with_feature_encoder(old, SEEING, torch.cat([clip.images[0] for clip in images]))
    save_checkpoint(new.state_dict(), new.architecture, arguments.out, "scal3r-tiny")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
