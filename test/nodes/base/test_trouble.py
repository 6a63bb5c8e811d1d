"""What is wrong with a message costs that message, is counted by kind, and told now and then."""

import sys
import threading
from collections import Counter

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from scal3r_ros.nodes.base.trouble import InputTrouble, snapshot


class Log:
    def __init__(self) -> None:
        self.told: list[str] = []

    def warning(self, text: str) -> None:
        self.told.append(text)


def test_a_bad_message_is_counted_by_kind_and_told_once_each():
    log, taken = Log(), []
    trouble = InputTrouble(log)

    def callback(message: int) -> None:
        if message < 0:
            raise ValueError(f"{message} is negative")
        taken.append(1 // message)

    odometry, imu = (trouble.guarded(kind, callback) for kind in ("odom", "imu"))
    for message in (1, -2, 0, -3):
        odometry(message)
    imu(0)
    assert taken == [1]
    assert trouble.counts == {"malformed_odom": 3, "malformed_imu": 1}
    assert log.told[0] == "ignored a message (odom): -2 is negative"
    assert len(log.told) == 2 and "ZeroDivisionError" in log.told[1], "a bug shows where it is"


def test_a_counter_is_copied_while_another_thread_grows_it():
    counts: Counter[str] = Counter()
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            counts.clear()
            for number in range(2000):
                counts[str(number)] += 1

    grower, before = threading.Thread(target=grow), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    grower.start()
    try:
        for _ in range(2000):
            total = Counter(received=1)
            total.update(snapshot(counts))
    finally:
        stop.set()
        grower.join()
        sys.setswitchinterval(before)
    assert total["received"] == 1
