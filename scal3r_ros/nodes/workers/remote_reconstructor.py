"""Reconstruction by workers over ROS: chunks are handed out, the memory stays with the workers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import rclpy
from std_srvs.srv import Trigger

from scal3r_ros.config import DistributedConfig
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.workers.async_hands import AsyncHands
from scal3r_ros.nodes.workers.context_client import ContextClient, ContextUnavailable
from scal3r_ros.nodes.workers.lockstep_hands import LockstepHands
from scal3r_ros.nodes.workers.questions import Questions
from scal3r_ros.reconstruct.interface import MemoryLost, MemoryState, ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.srv import LoadContext, SaveContext
from scal3r_ros.workers.hand_out import Hands, Result, WorkersUnavailable, hand_out
from scal3r_ros.workers.membership import GroupBroken


def open_remote(node: rclpy.node.Node, config: NodeConfig) -> RemoteReconstructor:
    """A reconstructor over the workers in the namespace of `node`, with an empty memory."""
    if config.memory.mode not in ("stream", "off", "local"):
        raise ValueError(
            f"memory.mode {config.memory.mode} is not available with workers; set it to stream"
        )
    client = ContextClient(
        node.context, node.get_namespace(), f"{node.get_name()}_rounds", config.distributed
    )
    remote = RemoteReconstructor(client, config.distributed, config.worker.count)
    try:
        remote.reset()
    except ContextUnavailable:
        remote.close()
        raise
    return remote


class RemoteReconstructor:
    """Implements `Reconstructor`; to be used by one thread."""

    name = "scal3r"

    def __init__(self, client: ContextClient, config: DistributedConfig, workers: int):
        self.round_size = config.round_size or workers
        self._client, self._config = client, config
        self._questions = Questions(client, config)
        kind = AsyncHands if config.policy == "async" else LockstepHands
        self._hands: Hands = kind(self._questions)
        self._keys = itertools.count(1)

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        if contribute:
            (result,) = self.reconstruct_round([chunk])
        else:
            try:
                result = self._questions.read(chunk)
            except WorkersUnavailable as error:
                raise ReconstructionFailed(str(error)) from error
        if isinstance(result, ReconstructionFailed):
            raise result
        return result

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Result]:
        """See `hand_out`."""
        return hand_out(self._hands, chunks, self._config.max_attempts)

    def reset(self) -> None:
        self._checked(self._client.call("reset_context", Trigger.Request()))

    def state(self) -> MemoryState:
        """The committed memory, through the rendezvous store. Raises `MemoryLost` at once where no
        group of workers is known to stand, and soon where its store does not answer."""
        from scal3r_ros.workers.admission import StoreError
        from scal3r_ros.workers.packing import BadSnapshot, discard, download, unseal

        key = self._new_key()
        try:
            request = SaveContext.Request(key=key)
            self._checked(self._client.call("save_context", request, of_group=True))
            store, wait = self._store(), self._config.store_timeout
            header, arrays = unseal(download(store, key, wait))
            discard(store, key, wait)
        except (ContextUnavailable, GroupBroken, StoreError, BadSnapshot) as error:
            raise MemoryLost(str(error)) from error
        return MemoryState(header["kind"], header["fingerprint"], int(header["version"]), arrays)

    def restore(self, state: MemoryState) -> None:
        from scal3r_ros.workers.packing import discard, seal, upload

        if state.kind != self.name:
            raise ValueError(
                f"the memory belongs to reconstructor {state.kind!r}, the workers run {self.name!r}"
            )
        key = self._new_key()
        header = {
            "kind": state.kind,
            "fingerprint": state.fingerprint,
            "version": str(state.version),
            "committed": "0",
        }
        store, wait = self._store(), self._config.store_timeout
        upload(store, key, seal(header, state.arrays), wait)
        answer = self._client.call("load_context", LoadContext.Request(key=key))
        discard(store, key, wait)
        if not answer.success:
            raise ValueError(f"the workers refused the memory: {answer.message}")

    def close(self) -> None:
        self._client.close()

    def _store(self):
        from scal3r_ros.workers.group import join_store

        address, _, port = self._client.state.rendezvous.rpartition(":")
        return join_store(address, int(port), self._config)

    def _new_key(self) -> str:
        return f"{self._questions.run_id}/{next(self._keys)}"

    def _checked(self, answer) -> None:
        if not answer.success:
            raise ContextUnavailable(answer.message)
