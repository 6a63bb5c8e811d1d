"""Threads of numerical libraries wait asleep, whichever way a program is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scal3r_ros.config import ModelConfig
from scal3r_ros.reconstruct.scal3r.setup import resolve_threads
from scal3r_ros.threads import PASSIVE

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import json, os, sys
state = {"loaded": sorted({"numpy", "torch", "cv2"} & set(sys.modules)), **os.environ}
def main():
    print(json.dumps(state))
"""


def environment_seen(script: Path, folder: Path, **given: str) -> dict[str, str]:
    """What the probe module found when it was imported by `script`."""
    (folder / "probe_module.py").write_text(PROBE)
    clean = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    environment = {**clean, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **given}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def installed(tmp_path) -> Path:
    """An executable as the build makes it, of a module that only looks around."""
    template = (ROOT / "cmake" / "entry_point.py.in").read_text()
    script = tmp_path / "executable"
    script.write_text(template.replace("@ENTRY_MODULE@", "probe_module"))
    return script


def test_installed_executables_set_it_before_any_library_is_loaded(installed, tmp_path):
    found = environment_seen(installed, tmp_path)
    assert found["loaded"] == []
    assert {name: found.get(name) for name in PASSIVE} == PASSIVE


def test_what_the_user_set_stays(installed, tmp_path):
    found = environment_seen(installed, tmp_path, OMP_WAIT_POLICY="ACTIVE")
    assert found["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_command_line_sets_it_before_any_library_is_loaded():
    script = (
        "import os, sys\n"
        "from scal3r_ros import cli\n"
        "cli.main([])\n"
        "assert not {'numpy', 'torch', 'cv2'} & set(sys.modules)\n"
        f"assert all(os.environ.get(name) for name in {sorted(PASSIVE)})\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=clean)


def test_importing_the_library_sets_nothing():
    script = (
        "import os\n"
        "import scal3r_ros.threads, scal3r_ros.reconstruct.factory, scal3r_ros.pipeline.mapper\n"
        f"assert not any(name in os.environ for name in {sorted(PASSIVE)})\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=clean)


@pytest.mark.parametrize(
    "options, device, threads",
    [
        ({}, "cpu", 1),
        ({"threads": 3}, "cpu", 3),
        ({"checkpoint": "official.pt"}, "cpu", 0),
        ({}, "cuda", 0),
    ],
)
def test_the_embedded_network_takes_one_thread(options, device, threads):
    assert resolve_threads(ModelConfig(**options), torch.device(device)) == threads
