"""How well frame descriptors recognise a place again, by the way they are pooled from tokens.

Every pooling gets the same tokens of the same frames: those that the embedded network's encoder
computes anyway. A frame asks the store of the loop search for the earlier frame that looks most
like it; the answer is right if both see the same surfaces (from true depth and poses).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from scal3r_ros.bench.place_recordings import Places, recorded_places, toured_places
from scal3r_ros.mapping.descriptor_store import DescriptorStore
from scal3r_ros.networks.descriptor import covariances, frame_descriptors
from scal3r_ros.networks.scal3r.checkpoint import EMBEDDED, load_network
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.reconstruct.preprocessing import prepare_image, target_size

SEEN_AGAIN = 0.3
"""Share of the surfaces in view that two frames must share to be one place."""
PRECISE = 0.9
"""Precision at which the recall is told."""
_WORDS, _FIRST = 16, 30
"""Size of the vocabulary for VLAD, and frames it is learned from."""


@dataclass(frozen=True)
class Retrieval:
    """The best earlier match of one frame. right: whether it sees the same place. known: whether
    any earlier frame does."""

    similarity: float
    right: bool
    known: bool


@dataclass(frozen=True)
class Quality:
    """Of all answers of one pooling. recall: share of the revisiting frames answered rightly, at a
    precision of `PRECISE` or better. chance: precision of taking every answer."""

    average_precision: float
    recall: float
    chance: float


def mean(tokens: Tensor) -> Tensor:
    """Mean over the patches of (S, N, C) tokens."""
    return tokens.mean(1)


def generalised_mean(tokens: Tensor) -> Tensor:
    """GeM with exponent 3."""
    return tokens.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)


def vlad(tokens: Tensor) -> Tensor:
    """Residuals from the nearest of some words, learned from the first frames."""
    flat = F.normalize(tokens, dim=-1)
    words, _ = kmeans2(flat[:_FIRST].flatten(0, 1).double().numpy(), _WORDS, minit="++", seed=0)
    centres = torch.from_numpy(words).float()
    belongs = F.one_hot(torch.cdist(flat, centres).argmin(-1), _WORDS).float()
    sums = torch.einsum("snk,snc->skc", belongs, flat) - belongs.sum(1)[..., None] * centres
    return F.normalize(sums, dim=-1).flatten(1)


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean,
    "GeM": generalised_mean,
    "VLAD": vlad,
    "covariance": covariances,
    "covariance, roots": frame_descriptors,
}
"""By name; the last one is ours."""


@torch.no_grad()
def patch_tokens(network: Scal3R, images: np.ndarray) -> Tensor:
    """Encoder tokens (S, N, C) of images (S, H, W, 3) uint8."""
    patch = network.architecture.patch_size
    size = target_size(*images.shape[1:3], network.architecture.image_size, patch)
    rgb = np.stack([prepare_image(image, size, patch).rgb for image in images])
    tokens = network.encode(torch.from_numpy(rgb).permute(0, 3, 1, 2))
    return tokens[..., : network.architecture.embed_dim].float()


def answers(vectors: np.ndarray, places: Places) -> Iterator[Retrieval]:
    """The best earlier match of every frame that has one far enough behind it."""
    store = DescriptorStore()
    for frame, vector in enumerate(vectors):
        newest = frame - places.gap
        if newest >= 0:
            best, match = store.nearest(vector[None], np.array([newest]))
            seen = places.shared[frame, : newest + 1] >= SEEN_AGAIN
            yield Retrieval(float(best[0, 0]), bool(seen[match[0, 0]]), bool(seen.any()))
        store.add(np.array([frame]), vector[None])


def quality(found: list[Retrieval]) -> Quality:
    """Average precision, and recall at a high precision, over all thresholds."""
    ranked = sorted(found, key=lambda answer: -answer.similarity)
    right = np.cumsum([answer.right for answer in ranked])
    precision = right / np.arange(1, len(ranked) + 1)
    total = max(sum(answer.known for answer in ranked), 1)
    gains = np.diff(np.concatenate([[0], right]))
    precise = precision >= PRECISE
    return Quality(
        float((precision * gains).sum() / total),
        float(right[precise].max() / total) if precise.any() else 0.0,
        float(precision[-1]),
    )


def compare(recordings: list[Places], network: Scal3R) -> dict[str, Quality]:
    """All poolings over all recordings together."""
    tokens = [patch_tokens(network, places.images) for places in recordings]
    table = {}
    for name, pool in POOLINGS.items():
        vectors = [F.normalize(pool(t), dim=-1).numpy() for t in tokens]
        found = [a for places, own in zip(recordings, vectors) for a in answers(own, places)]
        table[name] = quality(found)
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this part of the benchmark."""
    parser.add_argument("--out", type=Path, default=None, help="write the numbers here (JSON)")
    parser.add_argument("--quick", action="store_true", help="two tours")
    parser.add_argument(
        "--data", type=Path, default=None, help="a folder with rgb.txt, depth.txt, groundtruth.txt"
    )


def run(args: argparse.Namespace) -> None:
    """Print one table per kind of recording."""
    network = load_network(EMBEDDED).network
    tables = {"held-out tours": compare(list(toured_places(2 if args.quick else 10)), network)}
    if args.data:
        tables[args.data.name] = compare([recorded_places(args.data)], network)
    for title, table in tables.items():
        print(f"| {title} | average precision | recall at precision {PRECISE} | of all answers |")
        print("|---|---|---|---|")
        for name, q in table.items():
            print(f"| {name} | {q.average_precision:.2f} | {q.recall:.2f} | {q.chance:.2f} |")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows = {t: {n: asdict(q) for n, q in table.items()} for t, table in tables.items()}
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
