"""SIFT features (Lowe, IJCV 2004): precise positions, for textured scenes and small steps."""

from __future__ import annotations

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.features import Features, nearest_neighbours, spread

_LAYERS, _CONTRAST, _EDGE, _BLUR = 3, 0.008, 10.0, 1.6
"""Much less contrast than usual: poses gain more from many points than they lose by weak ones."""
_SURPLUS = 3
"""Points looked at per point kept, so that the kept ones can be spread over the image."""
_RATIO = 0.8
_MAX_ANGLE = 0.7


class Sift:
    """OpenCV's SIFT."""

    name = "sift"
    width = 128

    def extract(self, rgb: np.ndarray, limit: int) -> Features:
        """The strongest features of an image (H, W, 3) uint8, one per place and scale, spread over
        it."""
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        sift = cv2.SIFT_create(  # type: ignore[attr-defined]  # missing in the stub
            _SURPLUS * limit, _LAYERS, _CONTRAST, _EDGE, _BLUR, cv2.CV_32F, True
        )
        keypoints, descriptors = sift.detectAndCompute(gray, None)
        if not keypoints:
            return Features(np.zeros((0, 2), np.float32), np.zeros((0, self.width), np.float32))
        pixels = np.array([point.pt for point in keypoints], np.float32) + 0.5
        strength = np.array([point.response for point in keypoints])
        order = np.lexsort((pixels[:, 0], pixels[:, 1], -strength))
        _, first = np.unique(np.round(pixels[order] * 4), axis=0, return_index=True)
        order = order[np.sort(first)]
        size = np.array(rgb.shape[1::-1])
        order = order[spread(pixels[order], strength[order], size, limit)]
        return Features(pixels[order], descriptors[order])

    def match(self, first: Features, second: Features) -> np.ndarray:
        """Mutual nearest neighbours that are clearly better than the second best."""
        rows, columns, best, other = nearest_neighbours(first.descriptors, second.descriptors)
        angle = np.arccos(np.minimum(best, 1.0))
        good = (angle < _RATIO * np.arccos(np.clip(other, -1.0, 1.0))) & (angle < _MAX_ANGLE)
        return np.stack([rows[good], columns[good]], axis=1).astype(np.uint32)

    def for_places(self, descriptors: np.ndarray) -> np.ndarray:
        """Hellinger mapping: compares histograms better than the Euclidean distance does."""
        share = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
        return np.sqrt(share, dtype=np.float32)
