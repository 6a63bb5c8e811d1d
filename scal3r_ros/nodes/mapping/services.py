"""The node's services. Answers that need the worker are awaited, so no callback blocks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future as RosFuture
from std_srvs.srv import SetBool, Trigger

from scal3r_ros.nodes.mapping.long_work import PATIENCE
from scal3r_ros.srv import Export, LoadMap, SaveMap, SetMode


class NotPossible(RuntimeError):
    """A request that cannot be met in the present state; the message says what to do."""


class Services:
    """Exist from construction on and answer in every lifecycle state.

    The node offers `reset_map`, `set_paused`, `flush`, `finalize`, `save_map`, `load_map`,
    `export` and `set_mode`; all but `set_paused` return a future of the worker.
    """

    def __init__(self, node) -> None:
        self._node = node
        group = ReentrantCallbackGroup()
        for kind, name, handler in (
            (Trigger, "~/reset", self._reset),
            (SetBool, "~/set_paused", self._set_paused),
            (Trigger, "~/flush", self._flush),
            (Trigger, "~/finalize", self._finalize),
            (SaveMap, "~/save_map", self._save_map),
            (LoadMap, "~/load_map", self._load_map),
            (Export, "~/export", self._export),
            (SetMode, "~/set_mode", self._set_mode),
        ):
            node.create_service(kind, name, handler, callback_group=group)

    async def _reset(self, request, response):
        return await self._answer(response, self._node.reset_map)

    def _set_paused(self, request, response):
        try:
            response.message = self._node.set_paused(request.data)
            response.success = True
        except NotPossible as error:
            response.success, response.message = False, str(error)
        return response

    async def _flush(self, request, response):
        return await self._answer(response, self._node.flush)

    async def _finalize(self, request, response):
        return await self._begin("finalize", (), response)

    async def _save_map(self, request, response):
        return await self._begin("save_map", (request.path,), response)

    async def _load_map(self, request, response):
        return await self._answer(response, lambda: self._node.load_map(request.path))

    async def _set_mode(self, request, response):
        return await self._answer(response, lambda: self._node.set_mode(request.mode))

    async def _export(self, request, response):
        return await self._begin("export", (request.path, tuple(request.formats)), response)

    async def _begin(self, name: str, request: tuple, response) -> Any:
        """Long work: answered if it ends soon; else the caller is told that it goes on."""
        long_work = self._node.long_work
        try:
            work = long_work.begin(name, request, self._node.starter(name, request))
            if not await long_work.ended_within(work, PATIENCE):
                response.success, response.message = False, work.sentence
                return response
        except Exception as error:  # the border to the caller, who is told
            self._node.get_logger().warning(f"service failed: {error}")
            response.success, response.message = False, str(error) or type(error).__name__
            return response
        return await self._answer(response, lambda: work.future)

    async def _answer(self, response, request: Callable[[], Future]) -> Any:
        """Fill `response` from the dictionary of fields that the worker returns."""
        try:
            done: Any = await awaitable(request(), self._node.executor)
            for name, value in done.result().items():
                if hasattr(response, name):
                    setattr(response, name, value)
            response.success = True
        except Exception as error:  # the border to the caller, who is told
            self._node.get_logger().warning(f"service failed: {error}")
            response.success, response.message = False, str(error) or type(error).__name__
        return response


def awaitable(future: Future, executor) -> RosFuture:
    """A future that rclpy's executor can await; completed with the worker's future itself."""
    bridge: RosFuture = RosFuture(executor=executor)

    def complete(done: Future) -> None:
        bridge.set_result(done)
        executor.wake()

    future.add_done_callback(complete)
    return bridge
