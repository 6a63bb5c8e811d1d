"""Pictures of a point map: from above without the ceiling, and from aside. Same input, same
bytes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from scal3r_ros.io.pictures import save_rgb

_TOP_VIEW_PIXELS = 1400
_VIEW_SIZE = (900, 1400)
_OVERHEAD = 0.4
"""Points higher above the cameras than this share of the cameras' height above the lowest points
are left out: a ceiling hides the room."""
_ELEVATION = np.radians(42.0)
_FIELD_OF_VIEW = np.radians(45.0)
_TRACK = (220, 30, 30)


def below_ceiling(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N,) bool: points (N, 3), z up, that are not above the heads of cameras at `positions`
    (M, 3)."""
    if not len(points) or not len(positions):
        return np.ones(len(points), bool)
    cameras = float(np.median(positions[:, 2]))
    floor = float(np.percentile(points[:, 2], 2))
    spread = float(np.ptp(positions[:, 2]))  # a path over hills, or over several storeys
    return points[:, 2] <= cameras + max(_OVERHEAD * (cameras - floor), 0.0) + spread


def draw_top_view(
    path: str | Path, points: np.ndarray, colors: np.ndarray, positions: np.ndarray
) -> None:
    """The map from above in its own colours: points (N, 3) z up, without what is overhead, the
    highest one of a pixel wins; camera positions (M, 3) as a line."""
    image = np.full((_TOP_VIEW_PIXELS // 2, _TOP_VIEW_PIXELS, 3), 255, np.uint8)
    kept = below_ceiling(points, positions)
    points, colors = points[kept], colors[kept]
    if len(points):
        low, high = np.percentile(points[:, :2], [1, 99], axis=0)
        if len(positions):
            low = np.minimum(low, positions[:, :2].min(axis=0))
            high = np.maximum(high, positions[:, :2].max(axis=0))
        extent = np.maximum(high - low, 1e-9)
        low, extent = low - 0.04 * extent.max(), extent + 0.08 * extent.max()
        scale = _TOP_VIEW_PIXELS / extent.max()
        width, height = np.ceil(extent * scale).astype(int)
        image = np.full((height, width, 3), 255, np.uint8)
        order = np.argsort(points[:, 2], kind="stable")
        pixels = (points[order, :2] - low) * scale
        pixels[:, 1] = height - 1 - pixels[:, 1]
        _paint(image, pixels, colors[order], _dot(len(points)))
        line = ((positions[:, :2] - low) * scale).astype(np.int32)
        line[:, 1] = height - 1 - line[:, 1]
        cv2.polylines(image, [line], False, _TRACK, 2, cv2.LINE_AA)
    save_rgb(image, path)


def draw_perspective(
    path: str | Path, points: np.ndarray, colors: np.ndarray, positions: np.ndarray
) -> None:
    """The map as one sees it from aside and above, over the longer side: points (N, 3) z up,
    without what is overhead; camera positions (M, 3) as a line."""
    height, width = _VIEW_SIZE
    image = np.full((height, width, 3), 255, np.uint8)
    kept = below_ceiling(points, positions)
    points, colors = points[kept], colors[kept]
    if len(points):
        low, high = np.percentile(points, [2, 98], axis=0)
        inside = ((points >= low - 0.1 * (high - low)) & (points <= high + 0.1 * (high - low))).all(
            1
        )
        points, colors = points[inside], colors[inside]
        pixels, depth = _seen_from_aside(points, low, high)
        order = np.argsort(-depth, kind="stable")
        _paint(image, pixels[order], colors[order], _dot(len(points)) + 1)
        line, _ = _seen_from_aside(positions, low, high)
        cv2.polylines(image, [line.astype(np.int32)], False, _TRACK, 2, cv2.LINE_AA)
    save_rgb(image, path)


def _seen_from_aside(
    points: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) and distances (N,) for a camera that looks at a box `low` to `high` (3,)."""
    turned = points if high[0] - low[0] >= high[1] - low[1] else points[:, [1, 0, 2]] * [-1, 1, 1]
    box = np.array([low, high])
    box = box if turned is points else np.sort(box[:, [1, 0, 2]] * [-1, 1, 1], axis=0)
    height, width = _VIEW_SIZE
    focal = width / 2 / np.tan(_FIELD_OF_VIEW / 2)
    size = box[1] - box[0]
    away = 0.62 * max(size[0], 1.3 * size[1]) / np.tan(_FIELD_OF_VIEW / 2) + size[1] / 2
    local = turned - box.mean(axis=0)
    forward = np.array([0.0, np.cos(_ELEVATION), -np.sin(_ELEVATION)])
    up = np.array([0.0, np.sin(_ELEVATION), np.cos(_ELEVATION)])
    depth = np.maximum(local @ forward + away, 1e-3 * away)
    right = width / 2 + focal * local[:, 0] / depth
    down = height / 2 - focal * (local @ up) / depth
    return np.stack([right, down], axis=1), depth


def _dot(count: int) -> int:
    """Sparse maps get larger dots."""
    return int(np.clip(np.sqrt(300_000 / count), 0, 4))


def _paint(image: np.ndarray, pixels: np.ndarray, colors: np.ndarray, radius: int) -> None:
    """Squares at pixels (N, 2), the last one wins."""
    height, width = image.shape[:2]
    places = np.floor(pixels).astype(int)
    inside = ((places >= 0) & (places < [width, height])).all(axis=1)
    columns, rows = places[inside].T
    for right in range(radius + 1):
        for down in range(radius + 1):
            at = np.minimum(rows + down, height - 1), np.minimum(columns + right, width - 1)
            image[at] = colors[inside]
