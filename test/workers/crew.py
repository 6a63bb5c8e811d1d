"""Real worker processes that a test drives command by command, and kills where it wants."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.config import DistributedConfig
from scal3r_ros.records import Chunk, Frame
from scal3r_ros.workers.group import Place, host_store, join_store
from scal3r_ros.workers.shares import Share, shares

PATIENCE = 60.0
CONFIG = DistributedConfig(
    collective_timeout=4.0,
    connect_timeout=10.0,
    store_timeout=3.0,
    heartbeat_period=0.1,
    heartbeat_timeout=1.5,
    settle_time=0.2,
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["scal3r_ros.reconstruct.scal3r.reconstructor", "scal3r_ros.workers.lockstep_worker"]
)


def tiny_network(seed: int = 0):
    """The real network, small, with random weights and memory units that matter."""
    import torch

    from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
    from scal3r_ros.networks.scal3r.network import Scal3R

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    architecture = Architecture(
        image_size_of_pos_embed=56, embed_dim=32, vit_depth=1, vit_num_heads=2,
        vit_layer_scale=1.0, depth=4, num_heads=2, layer_scale=1.0,
        intermediate_layers=(0, 1, 2, 3), ttt_layers=(1, 2, 3), camera_trunk_depth=1,
        camera_num_heads=2, camera_layer_scale=1.0, dense_head="linear", points_head=False,
        image_size=56,
    )  # fmt: skip
    network = Scal3R(architecture, Numerics(token_slice=None)).eval().requires_grad_(False)
    for layer in architecture.ttt_layers:
        torch.nn.init.normal_(network.agg_regator.memory_unit(layer).proj.weight, std=0.1)
    return network


def tiny_engine(seed: int = 0, decay: float = 1.0, window: int = 0, mode: str = "stream"):
    """A reconstructor with `tiny_network`."""
    from scal3r_ros.config import MemoryConfig
    from scal3r_ros.networks.scal3r.checkpoint import LoadedNetwork
    from scal3r_ros.reconstruct.scal3r.reconstructor import Scal3RReconstructor

    loaded = LoadedNetwork(tiny_network(seed), f"random weights of seed {seed}")
    return Scal3RReconstructor(loaded, MemoryConfig(mode=mode, decay=decay, window=window))


def make_chunk(index: int, frames: int = 3) -> Chunk:
    """Random images, the same for the same index everywhere; chunks overlap by one frame."""
    first = index * 2
    images = [
        Frame(i, i * 10**8, np.random.default_rng(i).integers(0, 255, (56, 56, 3), np.uint8))
        for i in range(first, first + frames)
    ]
    return Chunk(index, 0, tuple(images), (first,) if index else ())


def of_mixed_sizes(chunk: Chunk) -> Chunk:
    """The same chunk of a sequence that began with 56 x 56 and has lower images among it, the first
    ones of some chunks too."""
    frames = tuple(replace(f, rgb=f.rgb[:40]) if f.id % 3 == 2 else f for f in chunk.frames)
    return replace(chunk, frames=frames, first_size=(56, 56))


def spoil(engine, where: str, call: int = 0, layer: int = 2) -> None:
    """Let one chunk's gradients of a memory layer, or its cameras, be NaN as in a broken network:
    that of call number `call`. `heads out of memory` lets the device run out in front of them."""
    import torch

    from scal3r_ros.networks.fast_weights import FastWeights

    owner, name = engine.network, "decode"
    if where == "gradients":
        owner, name = engine.network.agg_regator.memory_unit(layer), "gradient"
    plain, count = getattr(owner, name), 0

    def spoiled(*arguments):
        nonlocal count
        here, count = count == call, count + 1
        if here and where == "heads out of memory":
            raise torch.cuda.OutOfMemoryError("tried to allocate 9 GiB")
        result = plain(*arguments)
        if here and where == "gradients":
            return FastWeights(*(torch.full_like(g, torch.nan) for g in result))
        return replace(result, cameras=result.cameras * torch.nan) if here else result

    setattr(owner, name, spoiled)


@dataclass(frozen=True)
class Hazard:
    """How a worker comes to grief in its next round: at exchange number `exchange` of it."""

    when: str
    """`before`, `inside` or `after` the collective; `voted` after the vote has come back; `late`
    only delays it; `out of memory` lets the device run out in front of it; `lost vote` breaks the
    group off after everybody else has had the answer; `not finite` publishes NaN unchecked. What
    `spoil` does, it does to the chunk `exchange` of the round."""
    exchange: int = 0
    signal: int = signal.SIGKILL


class Crew:
    """Worker processes by name, and the store where they meet."""

    def __init__(
        self, *names: str, policy: str = "lockstep", wire: str = "float32", **engine: float
    ):
        self.config = replace(CONFIG, policy=policy, wire=wire)
        self.store = host_store(self.config)
        self.engine = engine
        self.pipes, self.processes = {}, {}
        self.generation = 0
        self.members: tuple[str, ...] = ()
        for name in names:
            self.hire(name)

    def hire(self, name: str) -> None:
        here, there = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_work, args=(there, self.store.port, self.config, self.engine)
        )
        process.start()
        there.close()
        self.pipes[name], self.processes[name] = here, process

    def form(self, *members: str, kind: str = "members", key: str = "") -> dict[str, object]:
        """Let `members` enter the next generation; what each has to say about it."""
        self.generation += 1
        self.members = members
        origin = (kind, key, self.generation)
        for rank, name in enumerate(members):
            self.tell(name, "join", (self.generation, rank, len(members)), origin)
        return {name: self.answer(name) for name in members}

    def round(self, number: int, chunks: list[Chunk], **hazards: Hazard) -> dict[str, object]:
        """One round over the present members; their answers: outcome, error or None if dead."""
        for name, share in zip(self.members, shares(len(chunks), len(self.members))):
            own = chunks[share.offset : share.offset + share.count]
            self.tell(name, "run", number, own, share, hazards.get(name))
        return {name: self.answer(name) for name in self.members}

    def start(self, name: str, number: int, chunk: Chunk, oldest_open: int, **hazard) -> None:
        """Hand a numbered chunk to one worker of an asynchronous crew; `answer` gives the
        outcome."""
        share = Share(number - oldest_open, 1, 1)
        self.tell(name, "run", number, [chunk], share, hazard.get("hazard"))

    def states(self) -> dict[str, dict[str, np.ndarray]]:
        """The memories of the present members."""
        return {name: self.ask(name, "state") for name in self.members}

    def ask(self, name: str, *command) -> object:
        self.tell(name, *command)
        return self.answer(name)

    def tell(self, name: str, *command) -> None:
        self.pipes[name].send(command)

    def answer(self, name: str) -> object:
        """None for a process that is dead or stopped."""
        pipe, process = self.pipes[name], self.processes[name]
        waited = 0.0
        while not pipe.poll(0.1):
            waited += 0.1
            if not process.is_alive() or _is_stopped(process.pid):
                return None
            assert waited < PATIENCE, f"worker {name} hangs"
        try:
            return pipe.recv()
        except EOFError:
            return None

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.join(10)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


def _work(pipe, port: int, config: DistributedConfig, engine: dict) -> None:
    import torch

    from scal3r_ros.workers.async_worker import AsyncWorker
    from scal3r_ros.workers.lockstep_worker import LockstepWorker
    from scal3r_ros.workers.membership import GroupBroken, Origin

    kind = AsyncWorker if config.policy == "async" else LockstepWorker
    worker = kind(tiny_engine(**engine), config, torch.device("cpu"))
    store = join_store("127.0.0.1", port, config)

    def join(place, origin):
        worker.join(store, Place(*place), Origin(*origin))
        return worker.progress

    def run(number, chunks, share: Share, hazard: Hazard | None):
        if hazard is not None:
            _prepare(worker, hazard)
        outcome = worker.run(number, chunks, share)
        if hazard is not None and hazard.when == "voted":
            os.kill(os.getpid(), hazard.signal)
        return outcome

    commands = {
        "join": join,
        "run": run,
        "read": worker.read,
        "state": lambda: worker.engine.state().arrays,
        "progress": lambda: worker.progress,
        "memory": worker.packed_memory,
        "traffic": lambda: worker.traffic,
        "staleness": lambda: worker.staleness,
        "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }
    while True:
        try:
            while worker.group is not None and not pipe.poll(0.01):
                _poll(worker)
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(commands[name](*arguments))
        except (GroupBroken, ValueError, RuntimeError) as error:
            pipe.send(error)


def _poll(worker) -> None:
    from scal3r_ros.workers.membership import GroupBroken

    try:
        worker.poll()
    except GroupBroken:
        worker.leave()


def _prepare(worker, hazard: Hazard) -> None:
    """Wrap the group's reductions, or the publishing of deltas, so that the process stops there."""
    from scal3r_ros.reconstruct.interface import OutOfDeviceMemory
    from scal3r_ros.workers.membership import GroupBroken

    if hazard.when in ("gradients", "cameras", "heads out of memory"):
        spoil(worker.engine, hazard.when, hazard.exchange)
        return
    count = 0

    def with_hazard(*arguments):
        nonlocal count
        here, count = count == hazard.exchange, count + 1
        if here and hazard.when == "before":
            os.kill(os.getpid(), hazard.signal)
        if here and hazard.when == "inside":
            threading.Timer(0.3, os.kill, (os.getpid(), hazard.signal)).start()
        if here and hazard.when == "late":
            time.sleep(2.0)
        if here and hazard.when == "not finite":
            arguments = (arguments[0], arguments[1] * float("nan"))
        if here and hazard.when == "out of memory":
            raise OutOfDeviceMemory("the chunk does not fit")
        result = plain(*arguments)
        if here and hazard.when == "lost vote":
            raise GroupBroken("the answer got lost")
        if here and hazard.when == "after":
            os.kill(os.getpid(), hazard.signal)
        return result

    owner, name = (worker, "publish") if hasattr(worker, "publish") else (worker.group, "_reduce")
    plain = getattr(owner, name)
    setattr(owner, name, with_hazard)
