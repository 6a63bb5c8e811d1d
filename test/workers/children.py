"""What other processes of the tests run; they import it by its name."""

import time

from crew import CONFIG

from scal3r_ros.workers.group import host_store
from scal3r_ros.workers.snapshots import write_snapshot


def write_for_ever(path, data):
    while True:
        write_snapshot(path, data)


def host(pipe):
    store = host_store(CONFIG)
    pipe.send(store.port)
    time.sleep(100)
