"""One sequence through the real mapper: scores of every chunk, and of the whole trajectory."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from scal3r_ros.config import Config
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import MemoryState, Outcome, Reconstructor
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.train.losses import Targets, make_targets, quaternion, scene_scale
from scal3r_ros.train.scores import Scores, score
from scal3r_ros.train.sequences import Sequence
from scal3r_ros.train.worlds.clips import ClipBatch, reference_first


class Recorder:
    """A reconstructor that keeps what another one predicts for the chunks of the sequence."""

    def __init__(self, inner: Reconstructor):
        self.inner = inner
        self.name, self.round_size = inner.name, inner.round_size
        self.predictions: list[ChunkPrediction] = []

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """Pass on; loop chunks are not kept."""
        prediction = self.inner.reconstruct(chunk, contribute)
        if chunk.kind == "sequence":
            self.predictions.append(prediction)
        return prediction

    def reconstruct_round(self, chunks: Many[Chunk]) -> list[Outcome]:
        """Pass on."""
        outcomes = self.inner.reconstruct_round(chunks)
        self.predictions += [o for o in outcomes if isinstance(o, ChunkPrediction)]
        return outcomes

    def reset(self) -> None:
        """Pass on."""
        self.inner.reset()

    def state(self) -> MemoryState:
        """Pass on."""
        return self.inner.state()

    def restore(self, state: MemoryState) -> None:
        """Pass on."""
        self.inner.restore(state)


@dataclass(frozen=True)
class Evaluated:
    """One sequence under one configuration.

    chunk_scores: errors of frame pairs and depth, None without true depth. targets: their truths,
    for baselines. ate: RMSE after a similarity, in per cent of the path; ate_still: that of a
    camera that never moves. kept: frames that were mapped. parts: pieces that the map fell into.
    """

    chunk_scores: Scores | None
    targets: list[Targets]
    ate: float
    ate_still: float
    kept: int
    parts: int
    loops: int


def evaluate_sequence(sequence: Sequence, config: Config, inner: Reconstructor) -> Evaluated:
    """Map a sequence and compare with the truth."""
    recorder = Recorder(inner)
    mapper = Mapper(config, recorder)
    loops = 0
    for frame in sequence.frames:
        loops += sum(len(update.loops) for update in mapper.add(frame))
    loops += sum(len(update.loops) for update in mapper.flush())
    poses = mapper.trajectory()
    scored = _chunk_scores(sequence, recorder.predictions, config.chunk.size)
    return Evaluated(
        Scores.join([s for s, _ in scored]) if scored else None,
        [t for _, t in scored],
        trajectory_error(sequence, [p.frame_id for p in poses], [p.T_map_camera for p in poses]),
        standstill_error(sequence),
        len(poses),
        len(set(mapper.graph().parts)) if poses else 0,
        loops,
    )


def trajectory_error(sequence: Sequence, ids: list[int], poses: list[np.ndarray]) -> float:
    """Absolute trajectory error (RMSE) after the best similarity, per cent of the path's length."""
    if len(ids) < 3:
        return float("nan")
    found = np.stack([T[:3, 3] for T in poses])
    truth = sequence.T_world_camera[ids][:, :3, 3]
    S = weighted_similarity(found, truth, np.ones(len(ids)))
    residual = np.linalg.norm(S.apply(found) - truth, axis=1)
    return float(100 * np.sqrt((residual**2).mean()) / sequence.path_length)


def standstill_error(sequence: Sequence) -> float:
    """The same error of a trajectory that stays at one point: what every estimate has to beat."""
    positions = sequence.T_world_camera[:, :3, 3]
    residual = np.linalg.norm(positions - positions.mean(0), axis=1)
    return float(100 * np.sqrt((residual**2).mean()) / sequence.path_length)


def _chunk_scores(
    sequence: Sequence, predictions: list[ChunkPrediction], size: int
) -> list[tuple[Scores, Targets]]:
    """Scores of the full chunks of a sequence with true depth."""
    if sequence.depth is None:
        return []
    scored = []
    for prediction in predictions:
        if len(prediction.frame_ids) == size:
            truth = _truth(sequence, prediction)
            targets = make_targets(truth, scene_scale(truth))
            encoding, depth = _encoded(prediction)
            scored.append((score(encoding, depth, targets), targets))
    return scored


def _truth(sequence: Sequence, prediction: ChunkPrediction) -> ClipBatch:
    """The truth of a chunk at the prediction's resolution, reference frame first."""
    ids = np.array(prediction.frame_ids)[reference_first(len(prediction.frame_ids)).numpy()]
    height, width = prediction.depth.shape[1:]
    full = sequence.depth.shape[1:]
    rows = ((np.arange(height) + 0.5) * full[0] / height).astype(int)[:, None]
    columns = ((np.arange(width) + 0.5) * full[1] / width).astype(int)
    return ClipBatch(
        torch.empty(1, len(ids), 0, height, width),
        torch.from_numpy(sequence.depth[ids][:, rows, columns])[None],
        torch.from_numpy(sequence.solid[ids][:, rows, columns])[None],
        torch.from_numpy(sequence.T_world_camera[ids]).float()[None],
        torch.tensor([sequence.focal * width / full[1]]),
    )


def _encoded(prediction: ChunkPrediction) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction as camera encodings (1, S, 9) and depth (1, S, H, W), reference first."""
    order = reference_first(len(prediction.frame_ids)).numpy()
    T_camera_chunk = torch.from_numpy(np.linalg.inv(prediction.T_chunk_camera[order])).float()
    height, width = prediction.depth.shape[1:]
    K = prediction.intrinsics[order]
    fov = 2 * np.arctan(np.stack([height / 2 / K[:, 1, 1], width / 2 / K[:, 0, 0]], -1))
    encoding = torch.cat(
        [
            T_camera_chunk[:, :3, 3],
            quaternion(T_camera_chunk[:, :3, :3]),
            torch.from_numpy(fov).float(),
        ],
        -1,
    )
    return encoding[None], torch.from_numpy(prediction.depth[order])[None].nan_to_num(1.0)
