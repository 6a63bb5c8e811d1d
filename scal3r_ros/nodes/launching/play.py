"""`scal3r play BAG`: publish a recording's messages in its own rhythm, with /clock.

For machines without `ros2 bag`. The recorded bytes are published as they are.
"""

from __future__ import annotations

import argparse
import importlib
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock as ClockMessage
from std_srvs.srv import SetBool

from scal3r_ros.io.bag import open_bag
from scal3r_ros.io.source import BadInput
from scal3r_ros.nodes.base.conversions import ns_to_stamp
from scal3r_ros.nodes.output.pace import Pace


class Stopped(Exception):
    """The user, or the process that started this one, asked it to end."""


@dataclass(frozen=True)
class Recorded:
    """One message of a bag."""

    topic: str
    stamp_ns: int
    """When it was recorded."""
    data: bytes
    """CDR, as recorded."""


class BagPlayer(Node):
    """Publishers for the topics of a bag, /clock, and a service that pauses."""

    def __init__(
        self,
        bag: Path,
        topics: Sequence[str],
        pace: Pace,
        clock_rate: float,
        interrupted: threading.Event,
    ) -> None:
        super().__init__("bag_player")
        self._bag, self._pace, self._interrupted = bag, pace, interrupted
        self.publishers_by_topic = self._create_publishers(set(topics))
        self.create_service(SetBool, "~/set_paused", self._set_paused)
        if clock_rate > 0:
            self._clock_publisher = self.create_publisher(
                ClockMessage, "/clock", QoSProfile(depth=1)
            )
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(1.0 / clock_rate, self._tick, clock=steady)
        self._started = False

    def _create_publishers(self, wanted: set[str]) -> dict:
        publishers: dict[str, Publisher] = {}
        with open_bag(self._bag) as reader:
            present = {connection.topic for connection in reader.connections}
            if missing := sorted(wanted - present):
                raise BadInput(
                    f"{self._bag} has no topic {', '.join(missing)}; topics: "
                    f"{', '.join(sorted(present))}"
                )
            for connection in reader.connections:
                if connection.topic in ("/clock", *publishers):
                    continue
                if wanted and connection.topic not in wanted:
                    continue
                kind = message_class(connection.msgtype)
                if kind is None:
                    self.get_logger().warning(
                        f"skipping {connection.topic}: no Python module for {connection.msgtype}"
                    )
                    continue
                publishers[connection.topic] = self.create_publisher(
                    kind, connection.topic, recorded_qos(connection)
                )
        if not publishers:
            raise BadInput(f"{self._bag} has no topic that can be published")
        return publishers

    def messages(self) -> Iterator[Recorded]:
        """The bag's messages on the chosen topics, in the order of recording."""
        with open_bag(self._bag) as reader:
            chosen = [c for c in reader.connections if c.topic in self.publishers_by_topic]
            for connection, stamp_ns, data in reader.messages(chosen):
                yield Recorded(connection.topic, stamp_ns, bytes(data))

    def start(self, bag_ns: int) -> None:
        """Bag time begins at `bag_ns`; /clock is published from now on."""
        self._pace.restart(bag_ns)
        self._started = True

    def publish(self, message: Recorded) -> None:
        """Send one message."""
        self.publishers_by_topic[message.topic].publish(message.data)

    def toggle_paused(self) -> None:
        """Stop if playing, go on if stopped."""
        self._pace.set_paused(not self._pace.paused)
        self.get_logger().info("paused" if self._pace.paused else "playing")

    def require_uninterrupted(self) -> None:
        """Raises `Stopped` once the process has been asked to end."""
        if self._interrupted.is_set():
            raise Stopped

    def wait_until_received(self, seconds: float) -> None:
        """Give reliable subscribers time to take what is still on the way."""
        deadline = time.monotonic() + seconds
        for publisher in self.publishers_by_topic.values():
            while not publisher.wait_for_all_acked(Duration(seconds=0.1)):
                self.require_uninterrupted()
                if time.monotonic() > deadline:
                    return

    def _tick(self) -> None:
        if self._started:
            self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(self._pace.bag_time())))

    def _set_paused(self, request: SetBool.Request, response: SetBool.Response):
        self._pace.set_paused(request.data)
        response.success, response.message = True, "paused" if request.data else "playing"
        return response


def message_class(name: str):
    """Class of `package/msg/Name`; None if no such Python module is installed."""
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind, None)
    except ImportError:
        return None


def recorded_qos(connection) -> QoSProfile:
    """Reliability and durability as the recorded publisher offered; else reliable, volatile."""
    latched = connection.topic.endswith("tf_static")
    reliable = True
    for profile in getattr(connection.ext, "offered_qos_profiles", ()):
        latched |= profile.durability.name == "TRANSIENT_LOCAL"
        reliable &= profile.reliability.name != "BEST_EFFORT"
    return QoSProfile(
        depth=100,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def play(player: BagPlayer, pace: Pace, rounds: int, keyboard: bool) -> int:
    """Publish everything `rounds` times (0: until interrupted); returns the number of messages."""
    executor = SingleThreadedExecutor()
    executor.add_node(player)
    count = done = 0
    while not rounds or done < rounds:
        first = True
        for message in player.messages():
            if first:
                player.start(message.stamp_ns)
                first = False
            executor.spin_once(timeout_sec=0)
            player.require_uninterrupted()
            while (left := pace.seconds_until(message.stamp_ns)) > 0:
                executor.spin_once(timeout_sec=min(left, 0.1))
                player.require_uninterrupted()
                if keyboard and select.select([sys.stdin], [], [], 0)[0]:
                    sys.stdin.readline()
                    player.toggle_paused()
            player.publish(message)
            count += 1
        if first:
            raise BadInput("the bag holds no messages on the chosen topics")
        done += 1
    player.wait_until_received(10.0)
    return count


def wait_for_subscribers(player: BagPlayer, topics: Sequence[str], seconds: float) -> None:
    """Wait until every one of `topics` is subscribed to; `BadInput` after `seconds`."""
    deadline = time.monotonic() + seconds
    for topic in topics:
        if topic not in player.publishers_by_topic:
            raise BadInput(f"cannot wait for {topic}: it is not played")
        while not player.publishers_by_topic[topic].get_subscription_count():
            if time.monotonic() > deadline:
                raise BadInput(f"nobody subscribed to {topic} within {seconds:g} s")
            player.require_uninterrupted()
            rclpy.spin_once(player, timeout_sec=0.1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command line of `scal3r play`."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .db3 or .mcap file")
    parser.add_argument("--topics", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed factor (default: 1)")
    parser.add_argument("--loop", action="store_true", help="start again at the end, for ever")
    parser.add_argument(
        "--start-paused", action="store_true", help="wait for Enter or the service ~/set_paused"
    )
    parser.add_argument(
        "--clock", type=float, default=100.0, metavar="HZ", help="rate of /clock, 0 for none"
    )
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="wait before playing")
    parser.add_argument(
        "--wait-for", nargs="+", default=[], metavar="TOPIC", help="wait until these have a reader"
    )
    parser.add_argument(
        "--wait-seconds", type=float, default=60.0, metavar="S", help="limit of --wait-for"
    )
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="remappings: -r /from:=/to"
    )


def run(arguments: argparse.Namespace) -> int:
    """Play as the command line says; 0 at the end and when interrupted, 1 with a reason else."""
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    ros_args = ["--ros-args", *arguments.ros_args] if arguments.ros_args else []
    # rclpy's own handlers would end the context under a publication.
    rclpy.init(args=ros_args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        pace = Pace(arguments.rate, arguments.start_paused)
        player = BagPlayer(arguments.bag, arguments.topics, pace, arguments.clock, interrupted)
        wait_for_subscribers(player, arguments.wait_for, arguments.wait_seconds)
        interrupted.wait(arguments.delay)
        keyboard = sys.stdin is not None and sys.stdin.isatty()
        if keyboard:
            player.get_logger().info("press Enter to pause and to go on")
        count = play(player, pace, rounds=0 if arguments.loop else 1, keyboard=keyboard)
        player.get_logger().info(f"played {count} messages")
    except (BadInput, ValueError) as error:
        print(f"scal3r play: {error}", file=sys.stderr)
        return 1
    except Stopped:
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `scal3r play`."""
    parser = argparse.ArgumentParser(prog="scal3r play", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
