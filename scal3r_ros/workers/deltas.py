"""Asynchronous sharing: a set of gradient deltas that only grows, equal everywhere when at rest.

Chunks that contribute are numbered 1, 2, 3, ... by whoever hands them out. A chunk's delta at one
memory layer is merged once, whatever is repeated and in whatever order things arrive. Deltas of the
newest chunks stay apart; once every lower number is settled they are folded into the memory in
ascending order, so that the memories of all processes agree bit for bit when traffic has drained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Delta = Any
"""What a memory layer's gradient is; must be addable and have `scaled(factor)`."""


class DeltaLedger:
    """State: what has been folded, what is pending, and which numbers came to nothing."""

    def __init__(self, layers: tuple[int, ...]):
        self.layers = layers
        self.folded = 0
        """Every number up to here is in the memory, or void."""
        self.fresh = True
        """Nothing has come yet, and the first number is not known."""
        self._pending: dict[int, dict[int, Delta]] = {}
        self._void: set[int] = set()

    def restart(self, folded: int, fresh: bool) -> None:
        """Continue behind a memory that holds everything up to `folded`; complete newer deltas
        stay. A `fresh` memory may also begin at a later number."""
        self.folded, self.fresh = folded, fresh
        self._pending = {} if fresh else {n: self._pending[n] for n in self.complete()}
        self._pending = {n: d for n, d in self._pending.items() if n > folded}
        self._void = set() if fresh else {n for n in self._void if n > folded}

    def begin(self, oldest_open: int) -> None:
        """Tell that every number below `oldest_open` is settled; sets where a fresh memory
        begins."""
        if self.fresh:
            self.folded, self.fresh = oldest_open - 1, False

    def merge(self, number: int, layer: int, delta: Delta) -> bool:
        """Take in a delta; False if it was there already."""
        if self.has(number) or layer in self._pending.get(number, {}):
            return False
        self._pending.setdefault(number, {})[layer] = delta
        return True

    def set_void(self, number: int) -> None:
        """The chunk came to nothing; whatever it has sent is dropped."""
        if number > self.folded:
            self._pending.pop(number, None)
            self._void.add(number)

    def has(self, number: int) -> bool:
        """Whether a chunk is settled: all its layers are merged, or it is void."""
        complete = len(self._pending.get(number, ())) == len(self.layers)
        return number <= self.folded or number in self._void or complete

    def others(self, number: int, layer: int, decay: float) -> Delta | None:
        """Sum of what other chunks have pending at a layer, weighted by age as seen by
        `number`."""
        total = None
        for other in sorted(self._pending):
            if other == number or layer not in self._pending[other]:
                continue
            delta = self._pending[other][layer]
            weight = decay ** max(number - other, 0)
            delta = delta if weight == 1.0 else delta.scaled(weight)
            total = delta if total is None else total + delta
        return total

    def missing(self, number: int, layer: int) -> int:
        """Staleness: earlier chunks whose delta at this layer has not come yet."""
        waiting = range(self.folded + 1, number)
        return sum(n not in self._void and layer not in self._pending.get(n, {}) for n in waiting)

    def known(self, layer: int) -> str:
        """What a chunk reads at a layer now, for the log."""
        pending = [str(n) for n in sorted(self._pending) if layer in self._pending[n]]
        return f"1..{self.folded}, {', '.join(pending)}"

    def complete(self) -> list[int]:
        """Pending chunks with all layers."""
        return sorted(n for n, d in self._pending.items() if len(d) == len(self.layers))

    def void(self) -> list[int]:
        """Numbers that came to nothing and are not folded yet."""
        return sorted(self._void)

    def deltas(self, number: int) -> Mapping[int, Delta]:
        """Those of a complete chunk."""
        return self._pending[number]

    def fold(self, absorb: Callable[[Mapping[int, Delta]], None]) -> None:
        """Hand every chunk to `absorb`, in ascending order, as far as there is no gap."""
        while self.has(self.folded + 1):
            self.folded += 1
            if self.folded in self._void:
                self._void.discard(self.folded)
            else:
                absorb(self._pending.pop(self.folded))
