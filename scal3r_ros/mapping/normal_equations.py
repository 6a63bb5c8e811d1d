"""The damped normal equations of a pose graph, summed block by block: what a correction costs."""

from __future__ import annotations

import numpy as np
from scipy.sparse import bsr_matrix, csc_matrix, diags
from scipy.sparse.linalg import splu


class NormalEquations:
    """For one graph: where each edge's blocks go is found once, their values are summed anew."""

    def __init__(self, ends: np.ndarray, held: np.ndarray, count: int) -> None:
        """ends (M, 2) positions of `count` nodes, of which those in `held` do not move."""
        self.free = np.setdiff1d(np.arange(count), held)
        place = np.full(count, -1)
        place[self.free] = np.arange(len(self.free))
        a, b = place[ends[:, 0]], place[ends[:, 1]]
        rows, columns = np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])
        self._moves = (rows >= 0) & (columns >= 0)
        keys = rows[self._moves] * len(self.free) + columns[self._moves]
        self._order = np.argsort(keys, kind="stable")
        blocks, self._starts = np.unique(keys[self._order], return_index=True)
        self._columns = blocks % max(len(self.free), 1)
        counts = np.bincount(blocks // max(len(self.free), 1), minlength=len(self.free))
        self._pointers = np.concatenate([[0], np.cumsum(counts)])
        self._ends = a, b

    def step(self, by_a: np.ndarray, by_b: np.ndarray, residuals: np.ndarray) -> Step:
        """Sum the equations of whitened derivatives (M, 7, 7) and residuals (M, 7)."""
        a_t, b_t = np.swapaxes(by_a, 1, 2), np.swapaxes(by_b, 1, 2)
        blocks = np.concatenate([a_t @ by_a, b_t @ by_b, a_t @ by_b, b_t @ by_a])
        data = np.add.reduceat(blocks[self._moves][self._order], self._starts, axis=0)
        size = 7 * len(self.free)
        normal = bsr_matrix((data, self._columns, self._pointers), shape=(size, size)).tocsc()
        gradient = np.zeros((len(self.free), 7))
        for place, turned in zip(self._ends, (a_t, b_t)):
            moves = place >= 0
            pull = (turned @ residuals[..., None])[..., 0]
            np.add.at(gradient, place[moves], pull[moves])
        return Step(normal, gradient)


class Step:
    """Equations of one linearisation, to be solved with more or less damping."""

    def __init__(self, normal: csc_matrix, gradient: np.ndarray) -> None:
        self._normal, self._gradient = normal, gradient

    def solve(self, damping: float) -> np.ndarray:
        """(F, 7) step of the free nodes; the diagonal is raised by the share `damping`."""
        diagonal = self._normal.diagonal()
        system = self._normal + diags(damping * diagonal + 1e-12 * max(diagonal.max(), 1e-12))
        factors = splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )  # fmt: skip
        return -factors.solve(self._gradient.ravel()).reshape(-1, 7)
