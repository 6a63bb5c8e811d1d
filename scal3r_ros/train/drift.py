"""Whole tours, chunk after chunk: how far scale, rotation and position drift, with and without
memory.

    python -m scal3r_ros.train.drift CHECKPOINT --tours FOLDER [--render 2]

The network runs alone, without the mapper: chunks are joined by the poses of their shared frames,
once as similarities, whose scale is the ratio of the depths of these frames, and once as rigid
motions. What a memory is for shows in the second: there nothing but the network keeps the scale.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scal3r_ros.networks.scal3r.checkpoint import load_network
from scal3r_ros.networks.scal3r.memory import (
    CausalMemory,
    ContextMemory,
    LocalMemory,
    NoMemory,
    RoundMemory,
)
from scal3r_ros.networks.scal3r.network import Prediction, Scal3R
from scal3r_ros.train.clip_cache import write_clip
from scal3r_ros.train.losses import SURE, make_targets, scene_scale
from scal3r_ros.train.scores import Scores, rotation_matrix, score
from scal3r_ros.train.sequences import world_sequences
from scal3r_ros.train.worlds.clips import (
    VALIDATION_SEEDS,
    ClipBatch,
    WorldSampler,
    reference_first,
    rigid_inverse,
)

MEMORY_MODES = ("off", "local", "stream", "batch")
FRAMES, OVERLAP = 8, 3
_PIXELS = 97
"""Every so many-th pixel is asked for its confidence."""
_TOUR_FRAMES, _STRIDE, _SIZE = 300, 4, (120, 160)


@dataclass(frozen=True)
class TourDrift:
    """One tour under one memory mode.

    scale: mean |log| of the ratio of the scales of neighbouring chunks, found by depth against
    truth. turn: mean rotation error from the first frame of a chunk to the last of the next,
    degrees. ate_sim3, ate_se3: RMSE of the joined path after one similarity, per cent of its
    length.
    """

    scale: float
    turn: float
    ate_sim3: float
    ate_se3: float


def memory_of(mode: str, chunks: int) -> RoundMemory:
    """The memory that a mode means for a tour of so many chunks in one call."""
    if mode == "batch":
        return ContextMemory().round(chunks)
    return {"off": NoMemory, "local": LocalMemory, "stream": CausalMemory}[mode]()


def chunks_of_tour(tour: ClipBatch) -> list[ClipBatch]:
    """Full overlapping chunks of a tour (1, F), each with its middle frame first."""
    order, step = reference_first(FRAMES), FRAMES - OVERLAP
    starts = range(0, tour.depth.shape[1] - FRAMES + 1, step)
    return [tour.frames(start + order) for start in starts]


def measure_drift(predictions: Many[Prediction], chunks: Many[ClipBatch]) -> TourDrift:
    """Join the chunks of one tour and compare with the truth."""
    scales = np.log([_scale(p, c) for p, c in zip(predictions, chunks)])
    found = [_poses(p) for p in predictions]
    depths = [_in_time(p.depth[0]) for p in predictions]
    truth = [_in_time(c.T_world_camera[0]).double().numpy() for c in chunks]
    turns = [_turn(found[i : i + 2], truth[i : i + 2]) for i in range(len(found) - 1)]
    return TourDrift(
        float(np.abs(np.diff(scales)).mean()),
        float(np.mean(turns)),
        path_error(_joined(found, depths, True), _unjoined(truth)),
        path_error(_joined(found, depths, False), _unjoined(truth)),
    )


def _scale(prediction: Prediction, chunk: ClipBatch) -> float:
    solid = chunk.solid
    return float((chunk.depth[solid] / prediction.depth[solid].clamp(min=1e-6)).median())


def _in_time(frames: Tensor) -> Tensor:
    """Frames of a chunk, reference first, in the order of time."""
    return frames[reference_first(FRAMES).argsort()]


def _poses(prediction: Prediction) -> np.ndarray:
    """(S, 4, 4) camera to chunk, in the order of time."""
    encoding = prediction.camera[0]
    T = torch.eye(4).repeat(len(encoding), 1, 1)
    T[:, :3, :3], T[:, :3, 3] = rotation_matrix(encoding[:, 3:7]), encoding[:, :3]
    return _in_time(rigid_inverse(T)).double().numpy()


def _turn(found: Many[np.ndarray], truth: Many[np.ndarray]) -> float:
    """Rotation between neighbouring chunks' first frames, against the truth, degrees."""

    def step(poses: Many[np.ndarray]) -> np.ndarray:
        first, second = (T[:, :3, :3] for T in poses)
        join = _mean_rotation(first[-OVERLAP:] @ second[:OVERLAP].transpose(0, 2, 1))
        return first[0].T @ join @ second[-1]

    cosine = (np.trace(step(found) @ step(truth).T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _joined(poses: Many[np.ndarray], depths: Many[Tensor], scaled: bool) -> np.ndarray:
    """Positions of all frames of the tour in the first chunk's frame."""
    rotation, shift, scale = np.eye(3), np.zeros(3), 1.0
    path = [poses[0][:, :3, 3]]
    for i in range(1, len(poses)):
        before, after = poses[i - 1][-OVERLAP:], poses[i][:OVERLAP]
        ratio = 1.0
        if scaled:
            ratio = float((depths[i - 1][-OVERLAP:] / depths[i][:OVERLAP]).median())
        turn = _mean_rotation(before[:, :3, :3] @ after[:, :3, :3].transpose(0, 2, 1))
        offset = (before[:, :3, 3] - ratio * after[:, :3, 3] @ turn.T).mean(0)
        shift = scale * rotation @ offset + shift
        rotation, scale = rotation @ turn, scale * ratio
        path.append(scale * poses[i][OVERLAP:, :3, 3] @ rotation.T + shift)
    return np.concatenate(path)


def _unjoined(truth: Many[np.ndarray]) -> np.ndarray:
    """True positions of all frames of the tour."""
    return np.concatenate([truth[0][:, :3, 3], *(T[OVERLAP:, :3, 3] for T in truth[1:])])


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(rotations.sum(0))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def path_error(found: np.ndarray, truth: np.ndarray) -> float:
    """RMSE of positions (N, 3) after the best similarity, per cent of the true path's length."""
    from scal3r_ros.mapping.similarity_fit import weighted_similarity

    residual = weighted_similarity(found, truth, np.ones(len(found))).apply(found) - truth
    length = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    return float(100 * np.sqrt((residual**2).sum(1).mean()) / length)


def render_tours(folder: Path, count: int) -> None:
    """Write `count` validation tours, all kinds in turn; those that are there are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    sampler = WorldSampler.validation()
    tours = world_sequences(
        count, _TOUR_FRAMES, _SIZE, _STRIDE, VALIDATION_SEEDS + 5000, sampler.textures
    )
    if len(list(folder.glob("*.pt"))) >= count:
        return
    for tour in tours:
        images = torch.from_numpy(np.stack([frame.rgb for frame in tour.frames]))
        clip = ClipBatch(
            images.permute(0, 3, 1, 2)[None].float() / 255,
            torch.from_numpy(tour.depth)[None],
            torch.from_numpy(tour.solid)[None],
            torch.from_numpy(tour.T_world_camera).float()[None],
            torch.tensor([tour.focal]),
        )
        write_clip(folder / f"{tour.name}.pt", clip)


def read_tour(path: Path) -> ClipBatch:
    """A tour as written, images in [0, 1]."""
    stored = torch.load(path, weights_only=True)
    frames = (stored[k][None] for k in ("images", "depth", "solid", "T_world_camera"))
    images, depth, solid, T = frames
    return ClipBatch(images.float() / 255, depth.float(), solid, T, stored["focal"])


def at_size(tour: ClipBatch, size: tuple[int, int]) -> ClipBatch:
    """The whole images at another size; depth from the nearest pixel."""
    from scal3r_ros.train.clip_cache import zoomed

    if tour.depth.shape[-2:] == size:
        return tour
    return zoomed(tour, size, 1.0)


@dataclass(frozen=True)
class Toured:
    """All tours under one memory mode. confidences: pairs of confidence and log error of pixels,
    (N, 2), depth scaled by one factor per chunk."""

    scores: Scores
    drifts: list[TourDrift]
    confidences: Tensor


@torch.no_grad()
def evaluate_tours(
    network: Scal3R, folder: Path, modes: Many[str], limit: int, width: int = 0
) -> dict[str, Toured]:
    """Scores of all chunks and drift of all tours below a folder, by memory mode."""
    width = width or network.architecture.image_size
    size = (width * 3 // 4, width)
    found: dict[str, tuple[list, list, list]] = {mode: ([], [], []) for mode in modes}
    for path in sorted(folder.glob("*.pt"))[:limit]:
        chunks = chunks_of_tour(at_size(read_tour(path), size))
        targets = [make_targets(chunk, scene_scale(chunk)) for chunk in chunks]
        for mode in modes:
            predictions = network([c.images for c in chunks], memory=memory_of(mode, len(chunks)))
            found[mode][0].extend(score(p.camera, p.depth, t) for p, t in zip(predictions, targets))
            found[mode][1].append(measure_drift(predictions, chunks))
            found[mode][2].extend(_confidences(p, c) for p, c in zip(predictions, chunks))
    return {
        mode: Toured(Scores.join(scores), drifts, torch.cat(pairs))
        for mode, (scores, drifts, pairs) in found.items()
    }


def _confidences(prediction: Prediction, chunk: ClipBatch) -> Tensor:
    solid = chunk.solid
    ratio = prediction.depth[solid].clamp(min=1e-6) / chunk.depth[solid]
    error = (ratio / ratio.median()).log().abs()
    return torch.stack([prediction.depth_confidence[solid], error], -1)[::_PIXELS]


def calibration(pairs: Tensor) -> str:
    """Tenths of the pixels by confidence: the error it claims and the error there is."""
    order = pairs[pairs[:, 0].argsort()]
    lines = ["| confidence | claimed error | median error |", "|---|---|---|"]
    for tenth in order.tensor_split(10):
        confidence, error = tenth.median(0).values.tolist()
        lines.append(f"| {confidence:.2f} | {SURE / confidence:.3f} | {error:.3f} |")
    return "\n".join(lines)


def table(found: dict[str, Toured]) -> str:
    """Medians of chunks and tours, as a Markdown table."""
    lines = [
        "| memory | rotation, deg | direction, deg | AbsRel | fov, deg | scale drift | joint, deg "
        "| ATE Sim(3), % | ATE SE(3), % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for mode, toured in found.items():
        s, drifts = toured.scores.summary(), toured.drifts
        cells = [f"{s['rotation']:.2f}", f"{s['direction']:.1f}", f"{s['abs_rel']:.3f}"]
        cells += [f"{s['fov']:.1f}", f"{np.median([d.scale for d in drifts]):.3f}"]
        cells += [f"{np.median([d.turn for d in drifts]):.2f}"]
        cells += [f"{np.median([getattr(d, k) for d in drifts]):.2f}" for k in _ATES]
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


_ATES = ("ate_sim3", "ate_se3")


def main() -> int:
    """Print the table of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tours", type=Path, required=True, help="folder of rendered tours")
    parser.add_argument("--render", type=int, default=0, help="render so many tours first")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--modes", nargs="+", choices=MEMORY_MODES, default=list(MEMORY_MODES))
    parser.add_argument(
        "--width", type=int, default=0, help="of the images; 0 is the network's own"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write every tour's drift")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.render:
        render_tours(arguments.tours, arguments.render)
    network = load_network(arguments.checkpoint).network
    found = evaluate_tours(
        network, arguments.tours, arguments.modes, arguments.limit, arguments.width
    )
    if arguments.json:
        rows = {mode: [asdict(d) for d in toured.drifts] for mode, toured in found.items()}
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(found))
    print(f"\n{calibration(found[arguments.modes[-1]].confidences)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
