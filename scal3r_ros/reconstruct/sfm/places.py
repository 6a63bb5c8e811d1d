"""Frame descriptors for place recognition from the same features (VLAD, Jegou et al. 2010)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WORDS = 64
_SAMPLES = 20000
_ROUNDS = 12


def learn_words(descriptors: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """A visual vocabulary (WORDS, D) float32 by k-means over unit descriptors (N, D) of some
    frames; empty (0, D) if there are too few."""
    pool = np.concatenate(descriptors)
    random = np.random.default_rng(seed)
    pool = pool[np.sort(random.permutation(len(pool))[:_SAMPLES])]
    if len(pool) < WORDS:
        return np.zeros((0, pool.shape[1]), np.float32)
    words = pool[random.choice(len(pool), WORDS, replace=False)]
    for _ in range(_ROUNDS):
        sums = _sums_by_word(pool, (pool @ words.T).argmax(axis=1))
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        words = np.where(length > 0, sums / np.maximum(length, 1e-9), words)
    return words.astype(np.float32)


def describe(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Unit vector (WORDS * D,) float32: per word the summed residuals of its descriptors (N, D),
    each word given the same weight and bursts damped; zeros for an image without features."""
    if not len(words) or not len(descriptors):
        return np.zeros(WORDS * words.shape[1], np.float32)
    nearest = (descriptors @ words.T).argmax(axis=1)
    sums = _sums_by_word(descriptors - words[nearest], nearest)
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return (sums / max(np.linalg.norm(sums), 1e-9)).astype(np.float32).ravel()


def _sums_by_word(vectors: np.ndarray, word: np.ndarray) -> np.ndarray:
    chosen = np.zeros((WORDS, len(vectors)), np.float32)
    chosen[word, np.arange(len(vectors))] = 1
    return chosen @ vectors
