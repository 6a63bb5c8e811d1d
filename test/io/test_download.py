"""The download against a model hub of our own on localhost, in processes of its own."""

import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from scal3r_ros.cli import main
from scal3r_ros.io.download import OFFICIAL_FILE, REPOSITORY

BLOCK = 16 << 20
CONTENT = random.Random(0).randbytes(BLOCK * 2 + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SCRIPT = """
import argparse, sys
from scal3r_ros.io import download
parser = argparse.ArgumentParser()
download.add_arguments(parser)
try:
    print(download.run(parser.parse_args()))
except download.DownloadFailed as error:
    sys.exit(f"FAILED {error}")
"""


class Hub(http.server.ThreadingHTTPServer):
    """Answers like the hub for one file; notes requested ranges, may hold back or spoil blocks."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[int] = []
        self.hold_from = len(CONTENT) + 1
        self.content = CONTENT
        self.listed = True
        self.closing = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        entry = {"type": "file", "path": OFFICIAL_FILE, "size": len(CONTENT), "oid": "0" * 40}
        entry["lfs"] = {"oid": SHA256, "size": len(CONTENT), "pointerSize": 130}
        if path == f"/{REPOSITORY}/resolve/main/{OFFICIAL_FILE}":
            self.send_block()
        elif "/tree/" in path or "/paths-info/" in path:
            self.send_json([entry] if self.server.listed else [])
        elif path == f"/api/models/{REPOSITORY}":
            self.send_json({"id": REPOSITORY, "_id": "1", "sha": "1" * 40, "siblings": []})
        else:
            self.send_error(404)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def send_json(self, value):
        self.send_payload(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_block(self):
        first, last = (int(x) for x in self.headers["Range"].removeprefix("bytes=").split("-"))
        self.server.ranges.append(first)
        if first >= self.server.hold_from:
            self.server.closing.wait(60)
            return
        part = self.server.content[first : last + 1]
        whole = f"bytes {first}-{first + len(part) - 1}/{len(CONTENT)}"
        self.send_payload(206, part, {"Content-Range": whole})

    def send_payload(self, status, payload, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(payload))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def start(hub_address, target, *arguments):
    environment = {**os.environ, "HF_ENDPOINT": hub_address, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "--out", str(target), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip(), err


def address(hub):
    return f"http://127.0.0.1:{hub.server_port}"


def test_arrives_whole_with_progress(hub, tmp_path):
    target = tmp_path / "new" / OFFICIAL_FILE
    code, out, err = finish(start(address(hub), target, "--sha256", SHA256))
    assert (code, out) == (0, str(target)), err
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == [OFFICIAL_FILE]
    assert "100%" in err and hub.ranges == [0, BLOCK, 2 * BLOCK]
    assert finish(start(address(hub), target))[0] == 0
    assert len(hub.ranges) == 3, "what is there is not fetched again"


def test_killed_download_goes_on_where_it_was(hub, tmp_path):
    target, hub.hold_from = tmp_path / OFFICIAL_FILE, BLOCK
    process = start(address(hub), target, "--quiet")
    deadline = time.monotonic() + 30
    while BLOCK not in hub.ranges and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    finish(process)
    assert BLOCK in hub.ranges and not target.exists()
    hub.hold_from = len(CONTENT) + 1
    hub.ranges.clear()
    code, _, err = finish(start(address(hub), target, "--quiet"))
    assert code == 0, err
    assert hub.ranges == [BLOCK, 2 * BLOCK]
    assert target.read_bytes() == CONTENT


def test_damaged_content_is_never_given_its_name(hub, tmp_path):
    hub.content = CONTENT[:100] + b"?" + CONTENT[101:]
    code, _, err = finish(start(address(hub), tmp_path / OFFICIAL_FILE, "--quiet"))
    assert code == 1 and "arrived damaged" in err
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_but_another_one(hub, tmp_path):
    target = tmp_path / OFFICIAL_FILE
    target.write_bytes(b"something else")
    code, _, err = finish(start(address(hub), target, "--sha256", SHA256))
    assert code == 1 and "delete it to fetch it again" in err
    assert target.read_bytes() == b"something else" and hub.ranges == []


def test_repository_without_the_file(hub, tmp_path):
    hub.listed = False
    code, _, err = finish(start(address(hub), tmp_path / OFFICIAL_FILE))
    assert code == 1 and "is not on the model hub" in err


def test_offline_is_one_clear_sentence(tmp_path):
    target = tmp_path / OFFICIAL_FILE
    code, _, err = finish(start("http://127.0.0.1:9", target))
    assert code == 1
    (line,) = err.strip().splitlines()
    assert line.startswith("FAILED cannot fetch") and str(target) in line
    assert "connect to the internet" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", ["loger", "loger-star"])
def test_where_other_weights_go_is_said_in_a_sentence(network, capsys):
    assert main(["download", network]) == 1
    told = capsys.readouterr().err
    assert "latest.pt" in told and "model.checkpoint" in told and "licence" in told
