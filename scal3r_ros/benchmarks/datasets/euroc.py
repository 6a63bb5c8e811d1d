"""EuRoC MAV: `V1_01_easy/mav0/cam0`, `state_groundtruth_estimate0` (body to world)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    at_times,
    required,
    usable,
    with_calibration,
)
from scal3r_ros.io.layouts import euroc
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_yaml
from scal3r_ros.io.tum import read_trajectory

REACH = 0.02
TRUTH = "mav0/state_groundtruth_estimate0/data.csv"


def find(root: Path) -> list[str]:
    names = sorted(path.parents[2].name for path in root.glob(f"*/{TRUTH}"))
    if not names:
        raise BadInput(f"{root} is no EuRoC: expected V1_01_easy/{TRUTH}")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = root / name, Counter[str]()
    listing = euroc.find(required(folder / "mav0/cam0", "the left camera").parents[1])
    if listing is None or listing.read_calibration is None:
        raise BadInput(f"{folder}/mav0/cam0: expected data.csv, data/ and sensor.yaml")
    pictures = tuple(Picture(stamp_ns, path) for stamp_ns, path in listing.images)
    stamps, T_world_body = read_trajectory(required(folder / TRUTH, "the true trajectory"))
    T_body_camera = _extrinsics(folder / "mav0/cam0/sensor.yaml")
    truth = at_times(pictures, stamps, T_world_body @ T_body_camera, REACH, dropped)
    note = "truth moved from the body to the camera by T_BS"
    camera = with_calibration(listing.read_calibration())
    return BenchmarkSequence(name, pictures, usable(truth, dropped), camera, dropped, (note,))


def _extrinsics(path: Path) -> np.ndarray:
    try:
        return np.array(read_yaml(path)["T_BS"]["data"], np.float64).reshape(4, 4)
    except (LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected T_BS with 16 numbers in data") from error


EUROC = Dataset(
    "euroc",
    "EuRoC MAV",
    "cam0, all frames, grey, distortion removed, nearest pose within 0.02 s",
    find,
    read,
    options={"gate.max_gap": 0.0},
)
