"""Snapshots: whole or refused, the previous one stays, and the store's waits end."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from children import host, write_for_ever
from crew import CONFIG

from scal3r_ros.workers.group import Place, connect, host_store, join_store
from scal3r_ros.workers.membership import GroupBroken
from scal3r_ros.workers.packing import BadSnapshot, download, pack, seal, unpack, unseal, upload
from scal3r_ros.workers.snapshots import previous, read_snapshot, write_snapshot

CPU = torch.device("cpu")
ARRAYS = {"layer1.w0": np.arange(12, dtype=np.float32).reshape(3, 4), "chunks": np.array(7)}


def test_header_and_arrays_come_back():
    for there, back in ((pack, unpack), (seal, unseal)):
        header, arrays = back(there({"kind": "scal3r"}, ARRAYS))
        assert header == {"kind": "scal3r"}
        assert arrays.keys() == ARRAYS.keys()
        assert all(
            arrays[k].tobytes() == v.tobytes() and arrays[k].shape == v.shape
            for k, v in ARRAYS.items()
        )


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_every_truncation_is_refused(keep):
    with pytest.raises(BadSnapshot):
        unseal(seal({}, ARRAYS)[:keep])


def test_a_flipped_bit_is_refused():
    data = bytearray(seal({}, ARRAYS))
    data[-9] ^= 1
    with pytest.raises(BadSnapshot, match="checksum"):
        unseal(bytes(data))


def test_the_previous_snapshot_is_used_when_the_newest_is_damaged(tmp_path):
    path = tmp_path / "context.safetensors"
    with pytest.raises(FileNotFoundError):
        read_snapshot(path)
    for number in ("1", "2", "3"):
        write_snapshot(path, seal({"n": number}, ARRAYS))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "context.previous.safetensors",
        "context.safetensors",
    ]
    assert unseal(read_snapshot(path)[0])[0] == {"n": "3"} and read_snapshot(path)[1] == []
    path.write_bytes(path.read_bytes()[:100])
    data, refused = read_snapshot(path)
    assert unseal(data)[0] == {"n": "2"} and len(refused) == 1 and str(path) in refused[0]
    previous(path).write_bytes(b"")
    with pytest.raises(BadSnapshot):
        read_snapshot(path)


def test_killed_while_writing_a_whole_snapshot_is_there(tmp_path):
    path = tmp_path / "context.safetensors"
    data = seal({}, {"x": np.zeros(1 << 20, np.float32)})
    write_snapshot(path, data)
    context = multiprocessing.get_context("forkserver")
    for delay in (0.05, 0.11, 0.17):
        process = context.Process(target=write_for_ever, args=(path, data))
        process.start()
        time.sleep(delay + 0.3)
        process.kill()
        process.join()
        assert unseal(read_snapshot(path)[0])[1]["x"].size == 1 << 20
        assert read_snapshot(path)[1] == []


def test_large_bytes_rest_in_the_store():
    store = host_store(CONFIG)
    data = np.random.default_rng(0).bytes(9 << 20)
    upload(store, "key", data, 10.0)
    assert download(join_store("127.0.0.1", store.port, CONFIG), "key", 10.0) == data
    with pytest.raises(GroupBroken):
        download(store, "other", 0.2)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_store_that_does_not_answer_holds_nobody_up(number):
    """A stopped host keeps its connections: the library alone would wait for ever."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=host, args=(there,))
    process.start()
    port = here.recv()
    store = join_store("127.0.0.1", port, replace(CONFIG, store_timeout=5.0))
    os.kill(process.pid, number)
    try:
        started = time.monotonic()
        with pytest.raises(GroupBroken):
            download(store, "key", 1.0)
        with pytest.raises(GroupBroken):
            upload(store, "key", b"x", 1.0)
            download(store, "key", 1.0)
        with pytest.raises(GroupBroken):
            join_store("127.0.0.1", port, replace(CONFIG, store_timeout=1.0))
        with pytest.raises(GroupBroken):
            connect(store, Place(1, 0, 2), replace(CONFIG, connect_timeout=1.0), CPU)
        assert time.monotonic() - started < 15
    finally:
        process.kill()
        process.join()
