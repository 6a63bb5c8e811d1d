"""Frame descriptors for place recognition from the same features (VLAD, Jegou et al. 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scal3r_ros.reconstruct.sfm.features import Features

WORDS = 64
_SAMPLES = 20000
_ROUNDS = 12


def learn_words(features: Sequence[Features], seed: int) -> np.ndarray:
    """A visual vocabulary (WORDS, 128) float32 by k-means over the descriptors of some frames."""
    pool = np.concatenate([_root(item.descriptors) for item in features])
    random = np.random.default_rng(seed)
    pool = pool[np.sort(random.permutation(len(pool))[:_SAMPLES])]
    if len(pool) < WORDS:
        return np.zeros((0, 128), np.float32)
    words = pool[random.choice(len(pool), WORDS, replace=False)]
    for _ in range(_ROUNDS):
        nearest = (pool @ words.T).argmax(axis=1)
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, pool)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        words = np.where(length > 0, sums / np.maximum(length, 1e-9), words)
    return words.astype(np.float32)


def describe(features: Features, words: np.ndarray) -> np.ndarray:
    """Unit vector (WORDS * 128,) float32: per word the summed residuals of its features, each word
    given the same weight and bursts damped; zeros for an image without features."""
    if not len(words) or not len(features.pixels):
        return np.zeros(WORDS * 128, np.float32)
    descriptors = _root(features.descriptors)
    nearest = (descriptors @ words.T).argmax(axis=1)
    sums = np.zeros_like(words)
    np.add.at(sums, nearest, descriptors - words[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return (sums / max(np.linalg.norm(sums), 1e-9)).astype(np.float32).ravel()


def _root(descriptors: np.ndarray) -> np.ndarray:
    """Hellinger mapping: compares histograms better than the Euclidean distance does."""
    share = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.sqrt(share, dtype=np.float32)
