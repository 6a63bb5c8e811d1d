"""Importing a native library does not take SIGTERM from the program."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pycolmap", reason="pycolmap is absent")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys, threading, time
from scal3r_ros.config import Config
from scal3r_ros.options import from_dict
from scal3r_ros.reconstruct.factory import open_reconstructor

{install}
config = from_dict(Config, {{"model.reconstructor": "sfm"}})
loader = threading.Thread(target=open_reconstructor, args=(config,))
loader.start()
loader.join()
assert 'pycolmap' in sys.modules
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5.0)
"""
INSTALL = "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), os._exit(7)))"


def run(install: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT.format(install=install)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_handler_of_the_node_stays_when_a_thread_loads_sfm():
    done = run(INSTALL)
    assert (done.returncode, done.stdout) == (7, "saved\n"), done.stderr


def test_without_a_handler_a_process_ends_without_a_stack_trace():
    """As the network's process does, which its node terminates."""
    done = run("")
    assert done.returncode == -signal.SIGTERM
    assert "SIGTERM" not in done.stderr
