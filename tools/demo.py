#!/usr/bin/env python3
"""Map a bag with the real node: start it, replay the bag into it, save, compare, show.

Runs inside the environment, as `make demo` does: tools/with_ros python tools/demo.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scal3r_ros.threads import wait_passively  # noqa: E402

wait_passively()  # also in the processes started here

import demo_recording  # noqa: E402
import demo_report  # noqa: E402
import rclpy  # noqa: E402
from demo_session import NODE, Conductor, DemoFailed, Processes, executable, isolate  # noqa: E402

from scal3r_ros.io.source import BadInput  # noqa: E402

BUNDLED_BAG = ROOT / "demo" / "loop_room"
REAL_BAG = ROOT / "demo" / "tum_fr3_cabinet"
SHORT_NAMES = {Path("real"): REAL_BAG}
CONFIGS = {BUNDLED_BAG: "demo.yaml"}
START = time.monotonic()


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        recording = demo_recording.inspect(arguments.bag, arguments.image_topic)
        summary = run_demo(recording, arguments)
    except (DemoFailed, BadInput) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo interrupted; its processes have been stopped", file=sys.stderr)
        return 130
    print(f"\n{summary}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, default=BUNDLED_BAG, help="rosbag2 to map, or `real`")
    parser.add_argument("--image-topic", default="", help="needed if the bag has several cameras")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", help="folder to write")
    parser.add_argument("--config", type=Path, help="parameter file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay")
    parser.add_argument("--view", action="store_true", help="live page on localhost; stays open")
    arguments = parser.parse_args()
    arguments.bag = SHORT_NAMES.get(arguments.bag, arguments.bag)
    if arguments.config is None and arguments.bag in CONFIGS:
        arguments.config = ROOT / "config" / CONFIGS[arguments.bag]
    arguments.out = arguments.out.absolute()
    return arguments


def run_demo(recording: demo_recording.Recording, arguments: argparse.Namespace) -> str:
    """The steps of the demo; returns the summary."""
    say(f"bag {recording.bag.name}: {recording.images} images on {recording.subscribed_topic}")
    out = empty_folder(arguments.out)
    isolate(out / "logs")
    with Processes(out / "logs") as processes:
        processes.start(NODE, mapper_command(recording, arguments))
        rclpy.init()
        try:
            conductor = Conductor(processes, say)
            conductor.wait_until_ready(120.0)
            if arguments.view:
                say(f"live view: {processes.logged_address(NODE) or 'see ' + str(out / 'logs')}")
            say("the mapper is ready; playing")
            processes.start("play", player_command(recording, arguments.rate))
            conductor.watch_replay(30.0 + 40.0 * recording.seconds / arguments.rate)
            say("the bag has ended; mapping what is left")
            say(conductor.flush(600.0))
            files = conductor.export(out)
            conductor.save(out / "map")
            conductor.spin(1.5)
            if arguments.view:
                wait_for_enter()
        finally:
            rclpy.try_shutdown()
        code = processes.stop(NODE, seconds=10.0)
        if code != 0:
            raise DemoFailed(f"the mapper ended with code {code}; see {processes.log(NODE)}")
    return conclude(recording, conductor, files, out)


def conclude(recording, conductor: Conductor, files: list[str], out: Path) -> str:
    """Compare with the ground truth and write the summary."""
    mapped_frames = demo_report.count_poses(out / "trajectory.txt")
    if not mapped_frames:
        log = out / "logs" / f"{NODE}.log"
        raise DemoFailed(f"no frame could be mapped; {log} says why, chunk by chunk")
    accuracy = None
    if recording.truth_topic and mapped_frames >= 3:
        stamps, truth = demo_recording.true_trajectory(recording)
        picture = out / "against_ground_truth.png"
        accuracy = demo_report.evaluate(out / "trajectory.txt", stamps, truth, picture)
        files = [*files, str(picture)]
    live = demo_report.live_facts(recording, out)
    map_accuracy = None
    if accuracy is not None and recording.bag == BUNDLED_BAG:
        map_accuracy = demo_report.compare_map(out / "map.ply", accuracy)
    report = json.loads((out / "report.json").read_text())
    received, mapped = conductor.health["input"], conductor.health["map"]
    facts = {
        "reconstructor": report["reconstructor_choice"],
        "bag": str(recording.bag),
        "bag_seconds": recording.seconds,
        "images": recording.images,
        "frames_received": int(received["received"]),
        "frames_dropped": int(received["dropped"]),
        "frames_gated": int(received["gated"]),
        "frames_mapped": mapped_frames,
        "points": int(mapped["points"]),
        "corrections": conductor.corrections,
        "seconds": time.monotonic() - START,
        "live": live,
        "problems": {k: v for k, v in conductor.problems.items() if k != "input"},
        "files": [str(Path(file).relative_to(out)) for file in files] + ["map/"],
    }
    return demo_report.write_summary(out, facts, accuracy, map_accuracy)


def mapper_command(recording, arguments: argparse.Namespace) -> list[str]:
    command = [executable(NODE), "--ros-args"]
    if arguments.config:
        command += ["--params-file", str(arguments.config.absolute())]
    command += ["-p", f"input.image_transport:={recording.transport}"]
    command += ["-p", "qos.image.reliability:=reliable", "-p", "qos.image.depth:=100"]
    command += ["-p", "queue.max_frames:=1000", "-p", "queue.max_megabytes:=1000.0"]
    command += ["-p", "queue.max_delay:=0.0"]  # every frame, however late: the map is scored
    command += ["-p", f"viewer.enabled:={'true' if arguments.view else 'false'}"]
    command += ["-r", f"image:={recording.image_topic}"]
    command += ["-r", f"image/compressed:={recording.image_topic}/compressed"]
    if recording.camera_info_topic:
        command += ["-r", f"camera_info:={recording.camera_info_topic}"]
    return command


def player_command(recording, rate: float) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "scal3r_ros.nodes.launching.play",
        str(recording.bag.absolute()),
    ]
    command += ["--rate", str(rate), "--clock", "0", "--wait-for", *recording.played_topics]
    return [*command, "--topics", *recording.played_topics]


def empty_folder(folder: Path) -> Path:
    """The folder without what an earlier demo wrote; refuses one with something else in it."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "logs" / f"{NODE}.log").exists():
            raise DemoFailed(f"{folder} holds other files; give another folder with OUT=path")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait_for_enter() -> None:
    if sys.stdin.isatty():
        input("the live view stays open; press Enter to end ")


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
