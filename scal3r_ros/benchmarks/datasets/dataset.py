"""What a runner knows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scal3r_ros.benchmarks.sequence import BenchmarkSequence


@dataclass(frozen=True)
class Dataset:
    """A data set's name, protocol and readers."""

    name: str
    title: str
    protocol: str
    """Which frames, how poses and pictures are paired: printed into every result."""
    find: Callable[[Path], Sequence[str]]
    """Names of the sequences under a root that can be scored; raises `BadInput`."""
    read: Callable[[Path, str], BenchmarkSequence]
    """A sequence by name; raises `BadInput`."""
    segments: str = ""
    """`kitti` or `vbr`: which relative errors over stretches are printed."""
    auc: tuple[int, ...] = ()
    """Degrees of pose AUC."""
    cloud: Mapping[str, float] = field(default_factory=dict)
    """`voxel`, `tau`, `icp_reach`, `max_depth` in metres and `every` n-th frame; empty: no cloud is
    scored."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of the mapper that this data set needs."""
