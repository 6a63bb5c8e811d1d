"""Work that takes longer than a service should: as actions with feedback and cancel.

The services of the same names begin the same work; what takes longer than `PATIENCE` they leave
running and say so, and a goal of the action that asks for the same follows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future as RosFuture

from scal3r_ros.action import Export, Finalize, MergeMaps, SaveMap
from scal3r_ros.pipeline.progress import Cancelled, Progress

PATIENCE = 5.0
"""Seconds that a service waits for its answer."""
_TICK = 0.2
"""Seconds between two looks at the work, and between two messages of feedback at least."""


@dataclass
class Work:
    """One piece of work that was begun."""

    name: str
    """Of the service and the action that ask for it."""
    request: tuple
    future: Future
    """Of the worker; its result is a dictionary of response fields."""
    progress: Progress
    begun: float = field(default_factory=time.monotonic)

    @property
    def sentence(self) -> str:
        """For whoever waits no longer."""
        return (
            f"{self.name} is still running ({self.progress.stage}); follow or cancel it with the "
            f"action ~/{self.name} and the same request, or ask again"
        )


class LongWork:
    """Begins work, at most one piece of each name at a time; offers the actions."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._running: dict[str, Work] = {}
        group = ReentrantCallbackGroup()
        self._servers = [
            ActionServer(
                node, kind, f"~/{name}", self._execute(name, kind, request),
                callback_group=group,
                goal_callback=lambda goal: GoalResponse.ACCEPT,
                cancel_callback=lambda goal: CancelResponse.ACCEPT,
            )
            for name, kind, request in (
                ("save_map", SaveMap, lambda goal: (goal.path,)),
                ("finalize", Finalize, lambda goal: ()),
                ("export", Export, lambda goal: (goal.path, tuple(goal.formats))),
                ("merge_maps", MergeMaps, lambda goal: (tuple(goal.maps), goal.out)),
            )
        ]  # fmt: skip
        self._ticks: list[tuple[float, RosFuture]] = []
        self._timer = node.create_timer(_TICK, self._tick, group, clock=node.steady_clock)

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for server in self._servers:
            server.destroy()
        self._node.destroy_timer(self._timer)

    def begin(self, name: str, request: tuple, start: Callable[[Progress], Future]) -> Work:
        """Begin work, or follow what runs under that name if it was asked the same; raises
        `RuntimeError` if it was asked something else."""
        running = self._running.get(name)
        if running is not None and not running.future.done():
            if running.request != request:
                raise RuntimeError(f"{name} is running for another request; wait, or cancel it")
            return running
        progress = Progress()
        work = Work(name, request, start(progress), progress)
        self._running[name] = work
        return work

    async def ended_within(self, work: Work, seconds: float) -> bool:
        """Wait until the work is done, at most so long; without blocking a callback."""
        end = time.monotonic() + seconds
        while not work.future.done() and time.monotonic() < end:
            await self._pause()
        return work.future.done()

    def _execute(self, name: str, kind: Any, request: Callable[[Any], tuple]) -> Callable:
        async def execute(goal: Any) -> Any:
            result = kind.Result()
            try:
                asked = request(goal.request)
                work = self.begin(name, asked, self._node.starter(name, asked))
                await self._follow(goal, kind, work)
                for field_name, value in work.future.result().items():
                    if hasattr(result, field_name):
                        setattr(result, field_name, value)
                result.success = True
                goal.succeed()
            except Cancelled as stopped:
                result.message = str(stopped)
                goal.canceled() if goal.is_cancel_requested else goal.abort()
            except Exception as error:  # the border to the caller, who is told
                self._node.get_logger().warning(f"{name} failed: {error}")
                result.message = str(error) or type(error).__name__
                goal.abort()
            return result

        return execute

    async def _follow(self, goal: Any, kind: Any, work: Work) -> None:
        """Tell how far the work is until it is done; hand on a request to cancel."""
        told: tuple[str, float] | None = None
        told_at = 0.0
        while not work.future.done():
            if goal.is_cancel_requested:
                work.progress.cancel()
            now = (work.progress.stage, work.progress.share)
            if now != told or time.monotonic() - told_at > 1.0:
                told, told_at = now, time.monotonic()
                seconds = told_at - work.begun
                goal.publish_feedback(kind.Feedback(stage=now[0], share=now[1], seconds=seconds))
            await self._pause()

    async def _pause(self) -> None:
        """Give the executor to others for a tick."""
        until: RosFuture = RosFuture(executor=self._node.executor)
        self._ticks.append((time.monotonic() + _TICK, until))
        await until

    def _tick(self) -> None:
        now = time.monotonic()
        due = [waiting for at, waiting in self._ticks if at <= now]
        self._ticks = [item for item in self._ticks if item[0] > now]
        for waiting in due:
            waiting.set_result(None)
