"""The command `scal3r` as a user meets it: help, exit codes, one sentence per mistake, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from scal3r_ros import cli
from scal3r_ros.io.tum import read_trajectory

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "loop_room"
QUICK = ["--reconstructor", "sfm", "--quiet", "--set", "gate.stride=5"]


def scal3r(*words, check=True):
    command = [sys.executable, "-m", "scal3r_ros.cli", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert not check or done.returncode == 0, done.stderr
    return done


def python(script):
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)


def images(folder, count=12):
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03d}.png"), noise)
    return folder


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_every_command_explains_itself(command, capsys):
    if command == "play":
        pytest.importorskip("rclpy", reason="ROS is absent")
    if command in ("train", "bench"):
        pytest.importorskip("torch", reason="torch is absent")
    with pytest.raises(SystemExit) as leaving:
        cli.main([command, "--help"] if command else ["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 8 and "usage: scal3r" in text


def test_no_command_prints_the_help_and_fails(capsys):
    assert cli.main([]) == cli.USAGE
    assert "reconstruct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("cv2.error('(-215) a\\n > b')", r"error: \(-215\) a > b\. This is a fault of the program"),
        ("OverflowError('too large')", "OverflowError: too large. This is a fault"),
        ("KeyError('image')", "KeyError: 'image'. This is"),
        ("AssertionError", "AssertionError: no reason given"),
        ("MemoryError", "not enough memory; scale the images down"),
        ("ValueError('line 3: found 2, expected 3')", "spoilt: line 3: found 2, expected 3$"),
    ],
)
def test_an_error_of_a_library_is_one_sentence(tmp_path, monkeypatch, capsys, error, words):
    (tmp_path / "spoilt_command.py").write_text(
        f"import cv2\ndef add_arguments(parser): pass\ndef run(arguments): raise {error}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spoilt_command", raising=False)
    monkeypatch.setitem(cli.COMMANDS, "spoilt", ("spoilt_command", "fail"))
    assert cli.main(["spoilt"]) == cli.BAD_INPUT
    (told,) = capsys.readouterr().err.splitlines()
    assert re.search(words, told)
    with pytest.raises(Exception):  # noqa: B017  # whichever it is, it passes through
        cli.main(["spoilt", "--debug"])


@pytest.mark.parametrize("older", [True, False])
def test_a_failed_run_says_that_the_results_there_are_older(tmp_path, capsys, older):
    (tmp_path / "out").mkdir()
    if older:
        (tmp_path / "out" / "report.json").write_text("{}")
    words = ["reconstruct", str(tmp_path / "absent.mp4"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == cli.BAD_INPUT
    told = capsys.readouterr().err
    assert "absent.mp4 does not exist" in told
    assert (f"{tmp_path / 'out'} holds the results of an earlier run, unchanged" in told) == older
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"] * older


def test_a_command_whose_library_is_missing_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, cli.COMMANDS["play"][0], raising=False)
    assert cli.main(["play", "bag"]) == cli.BAD_INPUT
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("scal3r play needs a library that is not there:") and "rclpy" in told


def test_commands_load_only_what_they_need():
    script = (
        "import sys\nfrom scal3r_ros import cli\n"
        "try: cli.main(['reconstruct', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pycolmap', 'rclpy', 'matplotlib', 'rosbags', 'evo'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = python(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name, library", [("sfm", "pycolmap"), ("scal3r", "torch")])
def test_a_missing_library_is_one_sentence(tmp_path, name, library):
    folder = images(tmp_path / "images", 2)
    words = ["reconstruct", str(folder), "--out", str(tmp_path / "out"), "--reconstructor", name]
    done = python(
        f"import sys\nsys.modules[{library!r}] = None\nfrom scal3r_ros import cli\n"
        f"sys.exit(cli.main({words!r}))"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("scal3r")]
    assert len(errors) == 1 and f"needs the library {library}" in errors[0]


@pytest.mark.parametrize(
    "words, message",
    [
        (["absent"], "absent does not exist"),
        (["--set", "chunk.siz=3", "--"], "unknown option chunk.siz; did you mean chunk.size?"),
        (["--set", "chunk.size", "--"], "--set needs OPTION=VALUE"),
        (["--set", "chunk.size=10", "chunk.overlap=10", "--"], "must be smaller than chunk.size"),
        (["--rate", "0", "--"], "--rate must be positive"),
        (["--config", "absent.yaml", "--"], "options: cannot read absent.yaml: No such file"),
    ],
)
def test_mistakes_get_one_clear_error_and_exit_code_1(tmp_path, capsys, words, message):
    target = [] if words == ["absent"] else [str(images(tmp_path / "images"))]
    code = cli.main(["reconstruct", "--out", str(tmp_path / "out"), *words, *target])
    captured = capsys.readouterr()
    assert code == cli.BAD_INPUT and message in captured.err
    assert not (tmp_path / "out").exists()


def test_options_of_the_node_are_allowed_in_the_file_and_checked(tmp_path):
    from scal3r_ros.cli_reconstruct import add_arguments, build_config

    def config(text, *words):
        (tmp_path / "c.yaml").write_text(text)
        parser = cli.argparse.ArgumentParser()
        add_arguments(parser)
        path = str(tmp_path / "c.yaml")
        return build_config(parser.parse_args(["x", "--out", "y", "--config", path, *words]))

    ros = "/**:\n  ros__parameters:\n    chunk: {size: 40}\n    tf: {mode: none}\n"
    assert config(ros).chunk.size == 40
    assert config(ros, "--set", "chunk.size=50").chunk.size == 50
    assert config("{}", "--reconstructor", "sfm").chunk.size == 20
    embedded = config("{}", "--reconstructor", "scal3r").chunk
    assert (embedded.size, embedded.overlap) == (8, 3)
    assert config("{}", "--checkpoint", "scal3r.pt").chunk.size == 60
    assert config(ros, "--reconstructor", "sfm").chunk.size == 40
    assert config("memory: {mode: batch}").memory.mode == "batch"
    with pytest.raises(ValueError, match=r"unknown option tf.mod; did you mean tf.mode"):
        config("tf: {mod: none}")


def test_a_bad_config_file_names_the_nearest_option(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("loop: {treshold: 0.5}")
    target = str(images(tmp_path / "images"))
    words = ["reconstruct", target, "--out", str(tmp_path / "o"), "--config"]
    assert cli.main([*words, str(tmp_path / "c.yaml")]) == cli.BAD_INPUT
    assert "did you mean loop.threshold?" in capsys.readouterr().err


def test_evaluate_says_what_belongs_together(capsys):
    assert cli.main(["evaluate", "--trajectory", "x"]) == cli.BAD_INPUT
    assert "--trajectory and --groundtruth belong together" in capsys.readouterr().err
    assert cli.main(["evaluate"]) == cli.BAD_INPUT


def test_a_still_camera_maps_nothing_and_says_so(tmp_path, capsys):
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    folder, out = images(tmp_path / "images"), tmp_path / "out"
    assert cli.main(["reconstruct", str(folder), "--out", str(out), *QUICK]) == cli.NOTHING_MAPPED
    assert "nothing could be mapped" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert [e[0] for e in report["events"]] == ["chunk_failed"]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    out = tmp_path_factory.mktemp("mapped")
    scal3r("reconstruct", DEMO, "--out", out, *QUICK)
    return out


@pytest.mark.slow
def test_the_demo_recording_becomes_an_accurate_map(mapped, tmp_path):
    truth = write_truth(tmp_path / "truth.txt")
    done = scal3r(
        "evaluate", "--trajectory", mapped / "trajectory.txt", "--groundtruth", truth,
        "--out", tmp_path,
    )  # fmt: skip
    assert "ATE" in done.stdout and (tmp_path / "evaluation.png").stat().st_size > 5000
    score = json.loads((tmp_path / "evaluation.json").read_text())["trajectory"]
    assert score["frames"] == 72 and score["ate_percent"] < 1.0, score
    report = json.loads((mapped / "report.json").read_text())
    assert report["loops"], "the tour returns to its start"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_and_resume_give_the_same_files(mapped, tmp_path):
    command = [sys.executable, "-m", "scal3r_ros.cli", "reconstruct", str(DEMO)]
    command += ["--out", str(tmp_path), *QUICK]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob(".resume/depth_*.png")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED and "--resume" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "trajectory.txt").exists()
    scal3r("reconstruct", DEMO, "--out", tmp_path, "--resume", *QUICK)
    ours, theirs = (read_trajectory(folder / "trajectory.txt") for folder in (tmp_path, mapped))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert (tmp_path / "map.ply").read_bytes() == (mapped / "map.ply").read_bytes()


def write_truth(path):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    lines = []
    with AnyReader([DEMO], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        connections = [c for c in reader.connections if c.topic == "/ground_truth/pose"]
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            stamp, p, q = message.header.stamp, message.pose.position, message.pose.orientation
            numbers = (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
            lines.append(
                f"{stamp.sec}.{stamp.nanosec:09d} " + " ".join(f"{x:.9g}" for x in numbers)
            )
    path.write_text("\n".join(lines))
    return path
