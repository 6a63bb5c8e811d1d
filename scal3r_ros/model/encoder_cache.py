"""Encoder tokens by frame: neighbouring chunks share frames, each passes the encoder once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class EncoderCache:
    """Keeps the patch tokens of the latest chunk of the chain, nothing older."""

    def __init__(self) -> None:
        self._tokens: dict[int, Tensor] = {}

    def tokens(
        self, ids: Sequence[int], encode: Callable[[Sequence[int]], Tensor], keep: bool
    ) -> Tensor:
        """Tokens (S, N, C) of the frames `ids`; `encode` makes those of the ids that are new.

        With `keep` exactly these frames are remembered, otherwise the memory stays as it was.
        """
        new = [i for i in ids if i not in self._tokens]
        known = dict(self._tokens)
        if new:
            known.update(zip(new, encode(new)))
        stacked = torch.stack([known[i] for i in ids])
        if keep:
            self._tokens = dict(zip(ids, stacked))  # views of one tensor: nothing older survives
        return stacked
