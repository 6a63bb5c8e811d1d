"""Pictures of a result: trajectory with loops, depth maps. Same input, same bytes.

matplotlib draws without a display and only here; depth maps need OpenCV alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scal3r_ros.files import write_bytes


def draw_trajectory(
    path: str | Path,
    parts: Sequence[np.ndarray],
    loops: np.ndarray,
    unit: str,
    title: str,
) -> None:
    """Positions of every connected part, each (N, 3) with z up, seen from above and over time;
    `loops` (L, 2, 3) joins revisited places."""
    figure, (above, height) = _figure(1, 2, (11, 5.5), [2.2, 1])
    for number, positions in enumerate(parts):
        label = "trajectory" if number == 0 else f"part {number + 1}, place unknown"
        style = "-" if number == 0 else ":"
        above.plot(positions[:, 0], positions[:, 1], style, linewidth=1.4, label=label)
        height.plot(_travelled(positions), positions[:, 2], style, linewidth=1.2)
    if len(parts):
        above.plot(*parts[0][0, :2], "o", color="tab:green", label="start")
        above.plot(*parts[0][-1, :2], "s", color="tab:red", label="end")
    for number, ends in enumerate(loops):
        legend = f"{len(loops)} loops" if number == 0 else None
        above.plot(ends[:, 0], ends[:, 1], color="tab:orange", linewidth=1.0, label=legend)
    above.set(xlabel=f"x [{unit}]", ylabel=f"y [{unit}]")
    figure.suptitle(title, fontsize=10)
    above.set_aspect("equal", adjustable="datalim")
    if len(parts):
        above.legend(loc="best", fontsize=8)
    height.set(xlabel=f"travelled [{unit}]", ylabel=f"height z [{unit}]")
    _save(figure, path)


def draw_depth(
    path: str | Path, rgb: np.ndarray, depth: np.ndarray, confidence: np.ndarray
) -> None:
    """An image (H, W, 3) over its depth (near is warm) and, where dense, its confidence."""
    known = np.isfinite(depth) & (depth > 0)
    panels = [rgb]
    if known.any():
        inverse = np.zeros(depth.shape)
        inverse[known] = 1.0 / depth[known]
        low, high = np.percentile(inverse[known], [2, 98])
        shade = np.clip((inverse - low) / max(high - low, 1e-12), 0, 1)
        panels.append(_colored(shade, known, rgb, cv2.COLORMAP_TURBO))
        sparse = known.mean() < 0.3
        if not sparse:
            low, high = np.percentile(confidence[known], [2, 98])
            shade = np.clip((confidence - low) / max(high - low, 1e-12), 0, 1)
            panels.append(_colored(shade, known, rgb, cv2.COLORMAP_VIRIDIS))
    save_rgb(np.concatenate(panels), path)


def _colored(shade: np.ndarray, known: np.ndarray, rgb: np.ndarray, palette: int) -> np.ndarray:
    colors = cv2.applyColorMap((255 * shade).astype(np.uint8), palette)[..., ::-1]
    if known.mean() > 0.3:
        return np.where(known[..., None], colors, 0).astype(np.uint8)
    canvas = (rgb // 3 + 20).astype(np.uint8)
    for row, column in np.argwhere(known):
        color = tuple(int(c) for c in colors[row, column])
        cv2.circle(canvas, (int(column), int(row)), 2, color, -1, cv2.LINE_AA)
    return canvas


def _travelled(positions: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.linalg.norm(np.diff(positions, axis=0), axis=1).cumsum()])


def _figure(rows: int, columns: int, size: tuple[float, float], widths: list[float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, gridspec_kw={"width_ratios": widths})
    for axis in np.ravel(axes):
        axis.grid(True, linewidth=0.4, alpha=0.6)
    return figure, axes


def _save(figure: Any, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def save_rgb(image: np.ndarray, path: str | Path) -> None:
    """Write an image (H, W, 3) uint8 as PNG."""
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not encoded:
        raise ValueError(f"cannot encode {path}")
    write_bytes(path, data.tobytes())
