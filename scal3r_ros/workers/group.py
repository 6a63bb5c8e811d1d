"""Process groups that can be left: every wait is bounded, and after a failure the next one forms.

One group per generation of the membership. Groups are made from the backend classes of
torch.distributed directly and not as the process' default group, so that a process can drop a
broken group and enter the next one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from scal3r_ros.config import DistributedConfig
from scal3r_ros.workers.admission import StoreError
from scal3r_ros.workers.deadline import within
from scal3r_ros.workers.membership import GroupBroken
from scal3r_ros.workers.secret import group_secret
from scal3r_ros.workers.store import HostedStore, StoreClient

Answer = TypeVar("Answer")


class Backend(Protocol):
    """What is asked of torch's backend classes, whose stubs leave the collectives out."""

    def broadcast(self, tensors: list[Tensor], opts: dist.BroadcastOptions, /) -> dist.Work: ...

    def allreduce(
        self, tensors: list[Tensor], opts: dist.AllreduceOptions = ..., /
    ) -> dist.Work: ...

    def send(self, tensors: list[Tensor], to: int, tag: int, /) -> dist.Work: ...

    def recv(self, tensors: list[Tensor], source: int, tag: int, /) -> dist.Work: ...


@dataclass(frozen=True)
class Place:
    """Where a process stands in one generation of the group."""

    generation: int
    rank: int
    size: int


def host_store(config: DistributedConfig, for_others: bool = True) -> HostedStore:
    """Open the rendezvous store in this process, on `config.address` and no other; port 0 takes a
    free one (`store.port`). `for_others`: processes on other machines are to reach it."""
    if for_others:
        _check_reachable(config.address)
    secret = group_secret(config.secret_file)
    return HostedStore(config.address, config.port, secret, config.store_timeout)


def _check_reachable(address: str) -> None:
    """Many systems give their own name the address 127.0.1.1, which no other machine reaches."""
    found = str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
    if found.startswith("127.") and not address.startswith(("127.", "localhost")):
        raise ValueError(
            f"distributed.address {address} means {found} on this machine, which no other machine "
            f"reaches; set it to the address that the others use (hostname -I lists them)"
        )


def join_store(address: str, port: int, config: DistributedConfig) -> StoreClient:
    """Connect to a store that another process hosts."""
    try:
        return StoreClient(address, port, group_secret(config.secret_file), config.store_timeout)
    except (StoreError, ValueError) as error:
        raise GroupBroken(f"no rendezvous at {address}:{port}: {error}") from error


class Group:
    """Collectives among the processes of one generation, each bounded by `timeout` seconds.

    Every failure is a `GroupBroken`; after one, the only useful call is `close`.
    """

    def __init__(
        self,
        backend: Backend,
        place: Place,
        device: torch.device,
        timeout: float,
        store: dist.Store | None = None,
    ):
        """`store` is what the backend was made with. It may ask it later, and torch alone does not
        keep the Python half of it."""
        self._backend: Backend | None = backend
        self._store = store
        self._timeout = timedelta(seconds=timeout)
        self.place = place
        self.device = device
        """Where tensors must be for this group's backend."""

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def size(self) -> int:
        return self.place.size

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place; bitwise the same on every rank."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def maximum(self, tensor: Tensor) -> Tensor:
        """Largest value over all ranks, in place."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def broadcast(self, tensor: Tensor, source: int) -> Tensor:
        """Values of rank `source`, in place."""
        options = dist.BroadcastOptions()
        options.rootRank = source
        options.timeout = self._timeout
        self._wait("broadcast", lambda: self._open().broadcast([tensor], options))
        return tensor

    def gather(self, values: Tensor) -> Tensor:
        """(n,) from every rank to (size, n) on every rank."""
        table = torch.zeros((self.size, *values.shape), dtype=values.dtype, device=self.device)
        table[self.rank] = values.to(self.device)
        return self.sum(table)

    def send(self, tensor: Tensor, to: int, tag: int = 0) -> None:
        """Hand a tensor to one rank, which has to `receive` it with the same tag."""
        self._wait("send", lambda: self._open().send([tensor], to, tag))

    def start_send(self, tensor: Tensor, to: int, tag: int) -> dist.Work:
        """As `send`, without waiting; keep the tensor until `finish` of the result."""
        return self._call("send", lambda: self._open().send([tensor], to, tag))

    def finish(self, work: dist.Work) -> None:
        self._wait("send", lambda: work)

    def receive(self, tensor: Tensor, source: int, tag: int = 0) -> Tensor:
        """Fill `tensor` with what rank `source` sends."""
        self._wait("receive", lambda: self._open().recv([tensor], source, tag))
        return tensor

    def close(self) -> None:
        """Leave the group; the other members notice."""
        backend, self._backend = self._backend, None
        # Before torch 2.6 dropping the reference is all there is.
        if backend is not None and hasattr(backend, "abort"):
            backend.abort()

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        options = dist.AllreduceOptions()
        options.reduceOp = operation  # type: ignore[assignment]  # torch converts it
        options.timeout = self._timeout
        self._wait("all-reduce", lambda: self._open().allreduce([tensor], options))
        return tensor

    def _wait(self, what: str, start: Callable[[], dist.Work]) -> None:
        def finish() -> None:
            start().wait(self._timeout)
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()

        self._call(what, finish)

    def _open(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("it was closed meanwhile")
        return self._backend

    def _call(self, what: str, call: Callable[[], Answer]) -> Answer:
        if self._backend is None:
            raise GroupBroken(f"{what}: rank {self.rank} has left generation "
                              f"{self.place.generation}")  # fmt: skip
        try:
            return call()
        except RuntimeError as error:
            raise GroupBroken(
                f"{what} failed in generation {self.place.generation} on rank {self.rank} of "
                f"{self.size}: {error}"
            ) from error


def connect(
    store: dist.Store, place: Place, config: DistributedConfig, device: torch.device
) -> Group:
    """Meet the other members of a generation; `GroupBroken` if they do not all come in time."""
    backend = backend_name(config.backend, device)
    prefixed = dist.PrefixStore(f"generation/{place.generation}/{backend}", store)
    make = _nccl if backend == "nccl" else _gloo
    try:
        made = within(
            config.connect_timeout + 1.0,
            f"forming generation {place.generation}",
            lambda: make(prefixed, place, config, device),
        )
    except (RuntimeError, TimeoutError) as error:
        raise GroupBroken(
            f"generation {place.generation} did not form within {config.connect_timeout:g} s: "
            f"{error}"
        ) from error
    home = device if backend == "nccl" else torch.device("cpu")
    return Group(made, place, home, config.collective_timeout, store)


def backend_name(wanted: str, device: torch.device) -> str:
    """`nccl` between GPUs, `gloo` between CPUs, unless one is asked for."""
    if wanted != "auto":
        return wanted
    return "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"


def _gloo(
    store: dist.Store, place: Place, config: DistributedConfig, device: torch.device
) -> Backend:
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # stub: Options
    options._timeout = timedelta(seconds=config.connect_timeout)
    options._devices = [_gloo_device(config)]
    return cast(Backend, dist.ProcessGroupGloo(store, place.rank, place.size, options))


def _gloo_device(config: DistributedConfig):
    if config.interface:
        return dist.ProcessGroupGloo.create_device(interface=config.interface)
    if config.address in ("127.0.0.1", "localhost", "::1"):
        return dist.ProcessGroupGloo.create_device(hostname=config.address)
    return dist.ProcessGroupGloo.create_default_device()


def _nccl(
    store: dist.Store, place: Place, config: DistributedConfig, device: torch.device
) -> Backend:
    # A late peer must reach us as an error of `wait`; the library's watchdog would end the process.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    os.environ.setdefault("TORCH_NCCL_ENABLE_MONITORING", "0")
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=config.collective_timeout)
    backend = cast(Backend, dist.ProcessGroupNCCL(store, place.rank, place.size, options))
    torch.cuda.set_device(device)
    probe = torch.zeros(1, device=device)  # NCCL connects at the first collective
    backend.allreduce([probe]).wait(timedelta(seconds=config.connect_timeout))
    torch.cuda.current_stream(device).synchronize()
    return backend
