"""Options of the map that results: its points, its axes and metres, and the floor for planners."""

from __future__ import annotations

from dataclasses import dataclass

from scal3r_ros.options import Section, option


@dataclass(frozen=True)
class MapConfig(Section):
    """The accumulated point map."""

    voxel_size: float = option(
        0.0,
        "Edge of a map voxel in map units; 0 chooses it from the first chunk's depth.",
        minimum=0.0,
    )
    voxel_ratio: float = option(
        0.01,
        "With voxel_size 0: voxel edge relative to the median depth.",
        minimum=1e-4,
        maximum=1.0,
    )
    confidence_ratio: float = option(
        0.75, "Keep pixels with confidence above this share of their frame's mean.", minimum=0.0
    )
    max_range: float = option(
        0.0, "Ignore depth beyond this multiple of the frame's median; 0 keeps all.", minimum=0.0
    )
    submap_chunks: int = option(
        4, "Chunks per submap, which moves as one in a correction.", minimum=1
    )
    max_megabytes: float = option(
        512.0, "Budget of the points in memory; beyond it voxels grow.", unit="MB", minimum=1.0
    )
    blend_poses: bool = option(
        True,
        "Blend the poses of a frame that lies in several chunks, so that the trajectory has no step"
        " where chunks meet; otherwise it has that of the chunk that owns it.",
    )
    alignment: str = option(
        "first_camera",
        "How the map frame gets its z-up axes. first_camera: level first camera assumed. floor:"
        " fitted ground plane. "
        "imu: gravity from the IMU. none: first camera's optical axes.",
        choices=("first_camera", "floor", "imu", "none"),
    )


@dataclass(frozen=True)
class GridConfig(Section):
    """Occupancy of the floor, for planners; needs a level map in metres."""

    enabled: bool = option(False, "Make `~/grid` and `~/obstacles`.")
    resolution: float = option(0.05, "Edge of a cell.", unit="m", minimum=0.01)
    min_height: float = option(
        0.15, "What stands less above the floor can be driven over.", unit="m", minimum=0.0
    )
    max_height: float = option(
        1.5, "What is higher above the floor can be driven under.", unit="m", minimum=0.05
    )
    max_drop: float = option(
        0.2, "Where the ground is deeper below the floor is a hole.", unit="m", minimum=0.02
    )
    max_slope: float = option(
        0.25, "Rise over distance up to which a ramp is floor.", minimum=0.0, maximum=1.0
    )
    max_step: float = option(
        0.06, "Largest step of the floor beside its slope.", unit="m", minimum=0.0
    )
    max_range: float = option(
        5.0, "Depth beyond this is too vague for a place in the grid.", unit="m", minimum=0.5
    )
    max_size: float = option(
        200.0, "Largest extent; beyond it only what is near the newest pose.", unit="m", minimum=1.0
    )
    max_megabytes: float = option(
        128.0, "Budget of the local grids; beyond it the oldest go.", unit="MB", minimum=0.5
    )
    obstacle_range: float = option(
        5.0, "Obstacles are published within this distance of the newest pose.", unit="m",
        minimum=0.5,
    )  # fmt: skip
    obstacle_chunks: int = option(4, "Newest chunks that obstacles are taken from.", minimum=1)

    def check(self) -> None:
        if self.min_height >= self.max_height:
            raise ValueError(
                f"grid.min_height ({self.min_height}) must be below grid.max_height "
                f"({self.max_height}); lower it"
            )


SCALE_SOURCES = (
    "odometry", "imu", "camera_height", "known_distance", "depth", "gnss",
)  # fmt: skip


@dataclass(frozen=True)
class ScaleConfig(Section):
    """Where metres come from; monocular images alone do not tell."""

    source: str = option(
        "none",
        "none: map units, reported as unknown. Others give metres.",
        choices=("none", *SCALE_SOURCES),
    )
    also: str = option(
        "",
        "Further sources, separated by commas, combined with `scale.source` by what each one is "
        "uncertain of; where they contradict each other there is an event.",
    )
    camera_height: float = option(
        1.0,
        "Height of the camera above the floor, for source camera_height.",
        unit="m",
        minimum=0.01,
    )
    known_distance: float = option(
        1.0,
        "Path length between the first frame and known_frame, for source known_distance.",
        unit="m",
        minimum=0.0,
    )
    known_frame: int = option(0, "Frame id that ends the known distance.", minimum=0)
    max_relative_sigma: float = option(
        0.04,
        "Rescale the map to metres, once and for all, when the relative standard deviation of the "
        "estimate is below this; it is averaged until then.",
        minimum=0.0,
    )

    def check(self) -> None:
        for name in self.sources:
            if name not in SCALE_SOURCES:
                raise ValueError(
                    f"scale.also names {name!r}; choose from {', '.join(SCALE_SOURCES)}"
                )
        if self.also and self.source == "none":
            raise ValueError("scale.also adds to scale.source, which is none; set that first")

    @property
    def sources(self) -> tuple[str, ...]:
        """All that are wanted, each once."""
        words = [self.source, *(word.strip() for word in self.also.split(","))]
        return tuple(dict.fromkeys(word for word in words if word and word != "none"))
