"""Deltas between processes without a barrier: sent when they are made, taken in when there is time.

The store tells how much each process has published; the tensors themselves go point to point.
Everybody polls at every memory layer and while idle, so a delta waits for at most one segment of
the network at its receiver.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from scal3r_ros.workers.exchange import Traffic
from scal3r_ros.workers.group import Group
from scal3r_ros.workers.membership import GroupBroken

_POLL = 0.002


@dataclass(frozen=True)
class Note:
    """What a published tensor is."""

    number: int
    layer: int
    oldest_open: int
    void: bool = False
    """The chunk came to nothing; there is no tensor."""


@dataclass
class _Parcel:
    """Tensors on their way; the library tells the end of a transfer only to who waits for it."""

    works: list[dist.Work]
    tensor: Tensor
    done: bool = False
    error: GroupBroken | None = None


class Mailbox:
    """One process' mailbox in one generation of the group; every wait is bounded."""

    def __init__(self, group: Group, store: dist.Store, wire: torch.dtype):
        self.traffic = Traffic()
        self._group = group
        self._plain = store  # torch keeps the C++ half only
        self._store = dist.PrefixStore(f"deltas/{group.place.generation}", store)
        self._wire = wire
        self._seen = [0] * group.size
        self._published = 0
        self._parcels: list[_Parcel] = []
        self._sent: queue.SimpleQueue[_Parcel | None] = queue.SimpleQueue()
        threading.Thread(target=self._see_off, name="deltas", daemon=True).start()

    def publish(self, note: Note, flat: Tensor | None) -> None:
        """Offer a delta to all others; returns at once. Its tag is its place in our sequence."""
        started = time.monotonic()
        if flat is not None:
            tensor = flat.to("cpu", self._wire)
            peers = [r for r in range(self._group.size) if r != self._group.rank]
            works = [self._group.start_send(tensor, to, self._published) for to in peers]
            self._parcels.append(_Parcel(works, tensor))
            self._sent.put(self._parcels[-1])
            self.traffic.bytes_sent += len(peers) * tensor.numel() * tensor.element_size()
        self._ask(self._announce, note)
        self.traffic.seconds += time.monotonic() - started

    def poll(self, sizes: dict[int, int]) -> list[tuple[Note, Tensor | None]]:
        """What has come since the last call; `sizes` tells the length of a layer's delta."""
        started = time.monotonic()
        news: list[tuple[Note, Tensor | None]] = []
        for source in range(self._group.size):
            if source != self._group.rank:
                news += self._take(source, sizes)
        self._parcels = [p for p in self._parcels if not _is_done(p)]
        self.traffic.seconds += time.monotonic() - started
        return news

    def drained(self) -> bool:
        """Whether everything published has been taken by all others."""
        return all(map(_is_done, self._parcels))

    def close(self) -> None:
        """End the thread once what is on its way has arrived or failed."""
        self._sent.put(None)

    def _take(self, source: int, sizes: dict[int, int]) -> list[tuple[Note, Tensor | None]]:
        news = []
        for tag, note in enumerate(self._ask(self._notes_of, source), start=self._seen[source]):
            flat = None
            if not note.void:
                flat = torch.empty(sizes[note.layer], dtype=self._wire)
                self._group.receive(flat, source, tag)
                flat = flat.float()
            news.append((note, flat))
            self._seen[source] += 1
        return news

    def _see_off(self) -> None:
        while (parcel := self._sent.get()) is not None:
            try:
                for work in parcel.works:
                    self._group.finish(work)
            except GroupBroken as error:
                parcel.error = error
            parcel.done = True

    def _announce(self, note: Note) -> None:
        self._store.set(f"{self._group.rank}/{self._published}", json.dumps(vars(note)))
        self._published += 1
        self._store.add(f"{self._group.rank}", 1)

    def _notes_of(self, source: int) -> list[Note]:
        count = self._store.add(f"{source}", 0)
        return [self._note(f"{source}/{n}") for n in range(self._seen[source], count)]

    def _note(self, key: str) -> Note:
        """The last reader removes it, so that the store does not grow."""
        note = Note(**json.loads(self._store.get(key)))
        if self._store.add(f"{key}/read", 1) == self._group.size - 1:
            self._store.delete_key(key)
            self._store.delete_key(f"{key}/read")
        return note

    def _ask(self, request, argument):
        try:
            return request(argument)
        except RuntimeError as error:
            raise GroupBroken(f"the rendezvous store does not answer: {error}") from error


def _is_done(parcel: _Parcel) -> bool:
    if parcel.error is not None:
        raise parcel.error
    return parcel.done


def wait_until_drained(exchange: Mailbox, poll, timeout: float) -> None:
    """Poll until everybody has what we published; the others poll too, so this ends soon."""
    deadline = time.monotonic() + timeout
    while not exchange.drained():
        if time.monotonic() > deadline:
            raise GroupBroken(f"a process did not take our deltas within {timeout:g} s")
        poll()
        time.sleep(_POLL)
