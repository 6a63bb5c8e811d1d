"""Options of finding the camera in a map that stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

from scal3r_ros.options import Section, option


@dataclass(frozen=True)
class LocalisationConfig(Section):
    """Where the camera is in a saved map, which does not change meanwhile."""

    candidates: int = option(
        3, "Places tried for each chunk while the camera is lost; 1 while it is not.", minimum=1
    )
    threshold: float = option(
        0.15,
        "Smallest cosine similarity of two frame descriptors for a place to be tried; geometry and "
        "the images decide later.",
        minimum=-1.0,
        maximum=1.0,
    )
    min_likeness: float = option(
        0.35,
        "Smallest correlation of the images where a place of the map and the present view are "
        "said to overlap.",
        minimum=-1.0,
        maximum=1.0,
    )
    min_depth_agreement: float = option(
        0.5, "Smallest share of these pixels whose depths agree.", minimum=0.0, maximum=1.0
    )
    max_unchecked: int = option(
        5,
        "Chunks in a row that only odometry ties to the map, after which the camera is lost.",
        unit="chunks",
        minimum=1,
    )
    memory: str = option(
        "map",
        "What the network remembers while it localises: the map's memory, read only, or none.",
        choices=("map", "none"),
    )
