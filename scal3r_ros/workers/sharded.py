"""Offline over several processes: `torchrun --nproc-per-node N -m scal3r_ros.cli reconstruct ...`.

Rank 0 reads, maps and writes as in a single process; the others only help it with the network.
Chunks go out and predictions come back over a group of their own, so that gradients may travel by
NCCL and the helpers may wait long while rank 0 maps. When a process dies rank 0 saves its map and
the run ends; torchrun can restart it, and `--resume` continues.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from scal3r_ros.config import Config, DistributedConfig
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    OutOfDeviceMemory,
    ReconstructionFailed,
    round_of_at_least,
)
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.workers.commands import (
    pack_chunks,
    pack_results,
    unpack_chunks,
    unpack_results,
)
from scal3r_ros.workers.group import Group, Place, connect, host_store, join_store
from scal3r_ros.workers.hand_out import Attempt, Fault, Result, hand_out
from scal3r_ros.workers.lockstep_worker import LockstepWorker, RoundEngine, ShareOutcome
from scal3r_ros.workers.membership import GroupBroken, Origin
from scal3r_ros.workers.packing import receive_bytes, send_bytes
from scal3r_ros.workers.shares import Share, shares
from scal3r_ros.workers.store import StoreClient

log = logging.getLogger(__name__)


class RankLost(KeyboardInterrupt):
    """A process of the run has died or hangs. As after Ctrl-C, the chunk in flight has not been
    absorbed by anybody and can be saved with the map."""


class ShardedReconstructor:
    """Implements `Reconstructor` on rank 0, whose `Hands` are all ranks; the others are in
    `serve`."""

    all_or_none = True

    def __init__(self, engine: RoundEngine, config: DistributedConfig, device: torch.device):
        self.name = engine.name
        self._worker, self._control = _enter(engine, config, device)
        wanted = config.round_size or self._control.size
        self.round_size = round_of_at_least(engine.round_size, wanted)
        self._max_attempts = config.max_attempts
        self._number = 0

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        if not contribute:
            return self._worker.read(chunk)
        result = self.reconstruct_round([chunk])[0]
        if isinstance(result, ReconstructionFailed):
            raise result
        return result

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Result]:
        """One round over all ranks; see `hand_out`."""
        return hand_out(self, chunks, self._max_attempts)

    def attempt(self, chunks: Sequence[Chunk]) -> Attempt:
        """One round over all ranks."""
        absorbed: dict[int, Result] = {}
        blamed: dict[int, Fault] = {}
        outcomes = self._round(chunks)
        for share, outcome in zip(shares(len(chunks), self._control.size), outcomes):
            own = chunks[share.offset : share.offset + share.count]
            absorbed |= zip((chunk.index for chunk in own), outcome.results)
            blamed |= outcome.at_fault
        return Attempt(absorbed, blamed, "no rank says why")

    def has_absorbed(self) -> bool:
        """Never without an answer: a rank that is lost ends the run."""
        return False

    def read(self, chunk: Chunk) -> Result:
        try:
            return self._worker.read(chunk)
        except ReconstructionFailed as error:
            return error

    def give_up(self, chunks: Sequence[Chunk]) -> None:
        """Ranks keep nothing of an attempt."""

    def reset(self) -> None:
        self._tell_all({"do": "reset"})
        self._worker.engine.reset()

    def state(self) -> MemoryState:
        """That of rank 0; all ranks have the same."""
        return self._worker.engine.state()

    def restore(self, state: MemoryState) -> None:
        self._worker.engine.restore(state)
        self._tell_all({"do": "restore"})
        for rank in range(1, self._control.size):
            send_bytes(self._control, self._worker.packed_memory(), rank)

    def close(self) -> None:
        """Let the helpers end; after a loss they notice by themselves that this group is gone."""
        try:
            self._tell_all({"do": "stop"})
        except GroupBroken as error:
            log.warning("the other processes end with an error: %s", _first_words(error))
        self._worker.leave()
        self._control.close()

    def _round(self, chunks: Sequence[Chunk]) -> list[ShareOutcome]:
        """Outcomes by rank."""
        self._number += 1
        try:
            return self._hand_out(chunks)
        except GroupBroken as error:
            self._control.close()
            _ignore_the_launcher()
            raise RankLost(
                f"another process of this run died or hangs ({_first_words(error)})"
            ) from error

    def _hand_out(self, chunks: Sequence[Chunk]) -> list[ShareOutcome]:
        parts = shares(len(chunks), self._control.size)
        for rank, part in enumerate(parts[1:], start=1):
            command = {"do": "round", "number": self._number, "share": vars(part)}
            own = chunks[part.offset : part.offset + part.count]
            send_bytes(self._control, pack_chunks(command, own), rank)
        own = chunks[: parts[0].count]
        outcomes = [self._worker.run(self._number, own, parts[0])]
        for rank in range(1, self._control.size):
            answer, results = unpack_results(receive_bytes(self._control, rank))
            outcomes.append(ShareOutcome(answer["committed"], results, _faults(answer)))
        return outcomes

    def _tell_all(self, command: dict) -> None:
        for rank in range(1, self._control.size):
            send_bytes(self._control, pack_chunks(command, []), rank)


def open_sharded(config: Config) -> ShardedReconstructor:
    """The reconstructor of rank 0, once all other ranks are there."""
    from scal3r_ros.reconstruct.scal3r.setup import open_scal3r

    if config.memory.mode == "finalize":
        raise ValueError(
            "memory.mode finalize runs in one process; use batch, which gives the same result"
        )
    if config.distributed.policy != "lockstep":
        raise ValueError("under torchrun distributed.policy is lockstep; async is for live mapping")
    engine = open_scal3r(own_device(config).model, config.memory)
    return ShardedReconstructor(engine, config.distributed, engine.network.device)


def serve(config: Config) -> int:
    """Help rank 0 until it is done; the exit code."""
    from scal3r_ros.reconstruct.scal3r.setup import open_scal3r

    engine = open_scal3r(own_device(config).model, config.memory)
    worker, control = _enter(engine, config.distributed, engine.network.device)
    try:
        while _obey(worker, control):
            pass
    except GroupBroken as error:
        log.error("rank %d ends, another process is gone: %s", control.rank, _first_words(error))
        return 1
    finally:
        worker.leave()
        control.close()
    return 0


def own_device(config: Config) -> Config:
    """On machines with several GPUs every process takes the one of its local rank."""
    if config.model.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return config
    device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return replace(config, model=replace(config.model, device=device))


def _first_words(error: GroupBroken) -> str:
    """What failed and where, without what the transport has to say about it."""
    return str(error).partition(": ")[0]


def _ignore_the_launcher() -> None:
    """torchrun ends all processes when one has died, with SIGTERM and half a minute to save."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _enter(
    engine: RoundEngine, config: DistributedConfig, device: torch.device
) -> tuple[LockstepWorker, Group]:
    """Meet the other ranks: the worker with its group, and the group of commands."""
    launcher, rank, size = next(rendezvous("env://"))
    patient = replace(
        config,
        backend="gloo",
        address=os.environ["MASTER_ADDR"],
        collective_timeout=config.command_timeout,
    )
    store = _meet(launcher, rank, patient)
    control = connect(store, Place(0, rank, size), patient, torch.device("cpu"))
    worker = LockstepWorker(engine, replace(config, address=patient.address), device)
    worker.join(store, Place(1, rank, size), Origin())
    return worker, control


def _meet(launcher: dist.Store, rank: int, config: DistributedConfig) -> StoreClient:
    """The store that rank 0 serves to those who know the group's secret. That of the launcher
    listens on all addresses and lets everybody in, so nothing is learnt from it but a port."""
    key = f"scal3r/port/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == 0:
        several_machines = os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]
        store = host_store(replace(config, port=0), for_others=several_machines)
        launcher.set(key, str(store.port))
        return store
    return join_store(config.address, _port(launcher.get(key)), config)


def _port(told: bytes) -> int:
    """Read a port from the launcher's store, which any process that reaches it may have written.
    Raises `GroupBroken`."""
    if not (told.isdigit() and 0 < int(told[:6]) < 65536):
        raise GroupBroken(f"the launcher's store names {told[:20]!r} as a port")
    return int(told)


def _obey(worker: LockstepWorker, control: Group) -> bool:
    """Do one command of rank 0; False after the last."""
    command, chunks = unpack_chunks(receive_bytes(control, 0))
    if command["do"] == "round":
        outcome = worker.run(command["number"], chunks, Share(**command["share"]))
        answer = {"committed": outcome.committed, "at_fault": _as_text(outcome.at_fault)}
        send_bytes(control, pack_results(answer, outcome.results), 0)
    elif command["do"] == "reset":
        worker.engine.reset()
    elif command["do"] == "restore":
        worker.restore(receive_bytes(control, 0))
    return command["do"] != "stop"


def _as_text(faults: Mapping[int, Fault]) -> list[tuple[int, str, bool]]:
    """Chunk index, reason, and whether it does not fit the device."""
    return [(i, str(fault), isinstance(fault, OutOfDeviceMemory)) for i, fault in faults.items()]


def _faults(answer: dict) -> dict[int, Fault]:
    return {
        index: OutOfDeviceMemory(text) if too_large else ReconstructionFailed(text)
        for index, text, too_large in answer["at_fault"]
    }
