"""Encoder tokens by frame: neighbouring chunks share frames, each passes the encoder once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


class EncoderCache:
    """Keeps the patch tokens of the latest chunk of the chain, nothing older."""

    def __init__(self) -> None:
        self._tokens: dict[Hashable, Tensor] = {}

    def tokens(
        self, keys: Sequence[Hashable], encode: Callable[[Sequence[Hashable]], Tensor], keep: bool
    ) -> Tensor:
        """Tokens (S, N, C) of the frames `keys`; `encode` makes those of the keys that are new.

        With `keep` exactly these frames are remembered, otherwise the memory stays as it was.
        """
        new = [key for key in keys if key not in self._tokens]
        known = dict(self._tokens)
        if new:
            known.update(zip(new, encode(new)))
        stacked = torch.stack([known[key] for key in keys])
        if keep:
            self._tokens = dict(zip(keys, stacked))  # views of one tensor: nothing older survives
        return stacked
