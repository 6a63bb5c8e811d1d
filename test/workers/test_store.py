"""The meeting place of a group: strangers are sent away, sizes and waits are bounded, old keys
go."""

import multiprocessing
import socket
import struct
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from crew import CONFIG, Crew, make_chunk

from scal3r_ros.workers import admission
from scal3r_ros.workers import store as stores
from scal3r_ros.workers.admission import StoreError
from scal3r_ros.workers.coordinator import Coordinator
from scal3r_ros.workers.group import Place, connect, host_store, join_store
from scal3r_ros.workers.membership import IDLE, GroupBroken, Report
from scal3r_ros.workers.secret import group_secret
from scal3r_ros.workers.store import HostedStore, StoreClient

SECRET = b"known to members"


@pytest.fixture
def store():
    store = HostedStore("127.0.0.1", 0, SECRET, 5.0)
    yield store
    store.close()


def join(store, secret=SECRET):
    return StoreClient("127.0.0.1", store.port, secret, 5.0)


def test_it_does_what_a_store_does(store):
    other = join(store)
    threading.Timer(0.2, other.set, ("late", b"\0\xff")).start()
    assert store.get("late") == b"\0\xff", "waits for who comes later"
    assert [store.add("n", 3), other.add("n", -1)] == [3, 2] and store.get("n") == b"2"
    assert store.compare_set("c", "", "first") == b"first"
    assert other.compare_set("c", "other", "second") == b"first"
    assert store.check(["n", "c"]) and not store.check(["n", "absent"])
    assert store.delete_key("n") and not store.delete_key("n")
    assert store.num_keys() == 2
    prefixed = torch.distributed.PrefixStore("group", other)
    prefixed.set("key", "value")
    assert store.get("group/key") == b"value" and prefixed.delete_key("key")
    store.set_timeout(timedelta(seconds=0.1))
    with pytest.raises(StoreError, match="nothing was stored as 'absent'"):
        store.get("absent")


def test_it_listens_where_it_says_and_nowhere_else(store):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port), 2.0)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 4096])
def test_a_stranger_is_sent_away_and_holds_nobody_up(store, monkeypatch, said):
    monkeypatch.setattr(admission, "ADMISSION_TIME", 0.5)
    with socket.create_connection(("127.0.0.1", store.port), 5.0) as stranger:
        stranger.sendall(said)
        join(store).set("key", "of a member")
        stranger.settimeout(5.0)
        heard = b""
        try:
            while part := stranger.recv(1024):
                heard += part
        except ConnectionResetError:
            pass
    assert len(heard) == 32, "the random number of the greeting and no answer"
    assert store.server.refused == 1 and store.server.keys() == ["key"]


def test_another_secret_does_not_open_it(store):
    with pytest.raises(StoreError, match="give both the same distributed.secret_file"):
        join(store, b"another secret..")
    assert store.server.refused == 1


def test_a_member_that_sends_too_much_ends_its_own_connection(store, monkeypatch):
    member = join(store)
    member._socket.sendall(struct.pack("!I", 1 << 31))
    with pytest.raises(StoreError):
        member.get("key")
    with pytest.raises(StoreError, match="more than one message"):
        store.set("key", b"0" * (admission.MAX_FRAME + 1))
    monkeypatch.setattr(stores, "MAX_TOTAL", 100)
    store.set("key", b"0" * 60)
    with pytest.raises(StoreError, match="full"):
        store.set("second", b"0" * 60)
    store.set("key", b"1" * 90)
    assert store.get("key") == b"1" * 90 and store.num_keys() == 1


def test_only_the_owner_may_read_the_secret(tmp_path):
    file = tmp_path / "secret"
    with pytest.raises(ValueError, match="cannot be read"):
        group_secret(str(file))
    file.write_text("0123456789abcdef\n")
    file.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        group_secret(str(file))
    file.chmod(0o600)
    assert group_secret(str(file)) == b"0123456789abcdef"
    file.write_text("short")
    with pytest.raises(ValueError, match="at least 16"):
        group_secret(str(file))


def test_who_comes_first_makes_the_default_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "home"))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = set(pool.map(group_secret, [""] * 8))
    assert len(found) == 1 and len(found.pop()) == 64
    assert [f.name for f in (tmp_path / "home" / "scal3r_ros").iterdir()] == ["group_secret"]


def test_a_worker_without_the_secret_is_told(tmp_path):
    file = tmp_path / "secret"
    file.write_text("another secret of others")
    file.chmod(0o600)
    coordinator = Coordinator(CONFIG, expected=1, first_generation=1)
    said = coordinator.announcement()
    with pytest.raises(GroupBroken, match="does not share our secret"):
        join_store(said.address, said.port, replace(CONFIG, secret_file=str(file)))
    coordinator.close()


def test_a_name_that_means_this_machine_only_is_refused(monkeypatch):
    """As Debian writes it to /etc/hosts."""
    found = socket.getaddrinfo("127.0.1.1", None, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **options: found)
    with pytest.raises(ValueError, match="robot means 127.0.1.1 on this machine"):
        host_store(replace(CONFIG, address="robot"))


def test_generations_leave_no_keys_behind():
    """Real groups of one, formed again and again; every other time from a stored memory."""
    coordinator = Coordinator(CONFIG, expected=1, first_generation=1)
    said = coordinator.announcement()
    worker = join_store(said.address, said.port, CONFIG)
    counts, generation = [], 0
    deadline = time.monotonic() + 60.0
    while len(counts) < 6:
        assert time.monotonic() < deadline
        coordinator.hear(Report("/w", "weights", IDLE, generation, 1), 0, time.monotonic())
        plan = coordinator.step(time.monotonic()).plan
        if plan.generation > generation and plan.workers:
            generation = plan.generation
            connect(worker, Place(generation, 0, 1), CONFIG, torch.device("cpu")).close()
        elif plan.ready:
            counts.append(worker.num_keys())
            coordinator.reset(time.monotonic())
    assert counts[0] > 0 and len(set(counts)) == 1, counts
    coordinator.close()


def test_deltas_leave_no_keys_behind():
    crew, counts = Crew("a", "b", policy="async"), []
    try:
        crew.form("a", "b")
        for number in range(1, 7):
            crew.start("ab"[number % 2], number, make_chunk(number), number)
            assert crew.answer("ab"[number % 2]).committed
            counts.append(crew.store.num_keys())
    finally:
        crew.close()
    assert max(counts[2:]) <= counts[1], counts
