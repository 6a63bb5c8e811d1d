"""Options of the mapping node on top of those of the mapping method."""

from __future__ import annotations

from dataclasses import dataclass, field

from scal3r_ros.config import Config, InputConfig
from scal3r_ros.options import Section, option


@dataclass(frozen=True)
class NodeInputConfig(InputConfig):
    """What the node subscribes to, and which images are taken."""

    image_transport: str = option(
        "raw",
        "raw subscribes to `image`, compressed to `image/compressed`.",
        choices=("raw", "compressed"),
    )
    camera_info: bool = option(
        True, "Use `camera_info` where it is published; the first images wait for it up to 2 s."
    )
    rectify: bool = option(True, "Undistort images whose calibration has distortion.")
    odometry: bool = option(False, "Subscribe to `odom`, for scale and for tf.mode map_to_odom.")
    timeout: float = option(
        5.0, "Without a frame for this long the input is reported as failed.", unit="s", minimum=0.1
    )


@dataclass(frozen=True)
class TopicQosConfig(Section):
    """Quality of service of one input."""

    reliability: str = option(
        "auto",
        "best_effort hears every publisher but loses large messages whole; reliable hears only "
        "reliable publishers; auto is reliable while every publisher is.",
        choices=("auto", "best_effort", "reliable"),
    )
    depth: int = option(10, "Messages that wait in the middleware.", minimum=1)


@dataclass(frozen=True)
class QosConfig(Section):
    """Quality of service of the inputs; that of the outputs is fixed."""

    image: TopicQosConfig = field(default_factory=lambda: TopicQosConfig(depth=30))
    """One second of a camera at 30 Hz: callbacks may be held up that long without a loss."""
    odometry: TopicQosConfig = field(default_factory=lambda: TopicQosConfig(depth=50))
    imu: TopicQosConfig = field(default_factory=lambda: TopicQosConfig(depth=50))
    depth_image: TopicQosConfig = field(default_factory=TopicQosConfig)
    gnss: TopicQosConfig = field(default_factory=TopicQosConfig)


@dataclass(frozen=True)
class QueueConfig(Section):
    """Frames that wait for the worker. Frames already in a chunk are never dropped."""

    policy: str = option(
        "thin",
        "When full: block stops taking images from the middleware, drop_oldest drops the frame "
        "that waited longest, thin drops every second one so that the view keeps overlapping.",
        choices=("block", "drop_oldest", "thin"),
    )
    max_frames: int = option(120, "Most frames waiting.", minimum=1)
    max_megabytes: float = option(256.0, "Most memory waiting.", unit="MB", minimum=0.001)
    max_delay: float = option(
        10.0,
        "With drop_oldest and thin no more frames wait than are mapped in this time, by the speed "
        "of the last chunks, but always those of one chunk; 0 for no such bound.",
        unit="s",
        minimum=0.0,
    )


@dataclass(frozen=True)
class TimeConfig(Section):
    """Order of image stamps."""

    on_jump_back: str = option(
        "new_session",
        "When stamps jump back (a looping bag): reset starts a new map, new_session keeps the map "
        "and starts a new chain, ignore_frames waits until the stamps have caught up.",
        choices=("reset", "new_session", "ignore_frames"),
    )
    reorder_window: float = option(
        0.05, "Frames that arrive out of order by less are sorted.", unit="s", minimum=0.0
    )
    jump_threshold: float = option(
        1.0,
        "Stamps further back are a jump, those in between are late frames and dropped.",
        unit="s",
        minimum=0.0,
    )


@dataclass(frozen=True)
class TfConfig(Section):
    """Frames and what is broadcast on /tf."""

    mode: str = option(
        "map_to_camera",
        "map_to_odom corrects an odometry source, map_to_base is for a robot without odometry, "
        "map_to_camera for a hand-held camera, none broadcasts nothing.",
        choices=("map_to_odom", "map_to_base", "map_to_camera", "none"),
    )
    map_frame: str = option("map", "Name of the map frame.")
    odom_frame: str = option("odom", "Name of the odometry frame.")
    base_frame: str = option("base_link", "Name of the robot's base frame.")
    camera_frame: str = option(
        "camera_optical_frame", "Name of the camera's frame where images do not name it."
    )
    frame_prefix: str = option(
        "", "Put before map, odom and base frame; for several robots in one tree."
    )
    odometry: str = option(
        "external",
        "Who broadcasts odom to base in mode map_to_odom: external, or visual for this node.",
        choices=("external", "visual"),
    )
    require_scale: bool = option(
        True, "In modes with a robot base: broadcast nothing while the map has no metric scale."
    )
    rate: float = option(20.0, "Rate of re-broadcasting map to odom.", unit="Hz", minimum=0.1)
    tolerance: float = option(
        0.0, "How far re-broadcast map to odom is dated ahead.", unit="s", minimum=0.0
    )
    buffer: float = option(
        60.0,
        "How long transforms are kept; must exceed the delay of a chunk.",
        unit="s",
        minimum=1.0,
    )
    average: int = option(
        5, "Newest frames averaged for the odometry correction.", unit="frames", minimum=1
    )
    correction: str = option(
        "jump",
        "How map to odom follows a new estimate: at once, or slew at limited speed.",
        choices=("jump", "slew"),
    )
    max_speed: float = option(
        0.1, "With slew: speed of the correction at the robot.", unit="m/s", minimum=0.001
    )
    max_turn_rate: float = option(
        0.035, "With slew: turn rate of the correction.", unit="rad/s", minimum=0.0001
    )
    max_slew_distance: float = option(
        5.0, "With slew: a larger correction jumps.", unit="m", minimum=0.0
    )
    max_slew_turn: float = option(0.26, "With slew: a larger turn jumps.", unit="rad", minimum=0.0)

    def check(self) -> None:
        frames = [self.map_frame, self.odom_frame, self.base_frame]
        for name in frames:
            if not name or name.startswith("/"):
                raise ValueError(f"tf frame names have no leading slash, found {name!r}")
        if len(set(frames)) < 3:
            raise ValueError(f"tf frames must differ, found {', '.join(frames)}")

    @property
    def map(self) -> str:
        return self.frame_prefix + self.map_frame

    @property
    def odom(self) -> str:
        return self.frame_prefix + self.odom_frame

    @property
    def base(self) -> str:
        return self.frame_prefix + self.base_frame

    @property
    def visual_odom(self) -> str:
        """Frame of `~/odometry`: the odometry frame where this node gives the tree its odometry,
        or leaves the tree to others; else one beside it, a child of map."""
        own = self.mode == "map_to_odom" and self.odometry == "visual"
        beside = f"{self.frame_prefix}visual_{self.odom_frame}"
        return self.odom if own or self.mode == "none" else beside


RECURRENT = ("mem3r", "cut3r")
"""Kinds of tracking that ask a network."""


@dataclass(frozen=True)
class TrackingConfig(Section):
    """Poses of camera images between two chunks."""

    kind: str = option(
        "features",
        "What tells a provisional pose for every image, against the newest chunk: features follows "
        "corners, mem3r and cut3r ask a recurrent network, none leaves /tf to the chunks. Not used "
        "in tf.mode map_to_odom, where odometry fills the time between chunks.",
        choices=("none", "features", "mem3r", "cut3r"),
    )
    checkpoint: str = option(
        "", "Weights for kind mem3r and cut3r, a .safetensors or .pth file of that family."
    )
    rule: str = option(
        "ttt3r",
        "For kind mem3r and cut3r: as model.state_rule.",
        choices=("cut3r", "ttt3r", "ttsa3r"),
    )
    block: int = option(
        100, "For kind mem3r and cut3r: images after which the state is reset.", minimum=2
    )

    def check(self) -> None:
        if self.kind in RECURRENT and not self.checkpoint:
            raise ValueError(
                f"tracking.kind {self.kind} needs weights; name them in tracking.checkpoint"
            )


@dataclass(frozen=True)
class PublishConfig(Section):
    """Sizes and rates of the outputs."""

    slice_points: int = option(
        20000, "Points per `~/cloud` message; larger additions are split.", minimum=1000
    )
    map_points: int = option(
        500000, "Most points in `~/map`; larger maps are thinned.", minimum=1000
    )
    map_interval: float = option(
        2.0, "Shortest time between two `~/map` messages.", unit="s", minimum=0.1
    )
    map_growth: float = option(
        0.1, "With no subscriber `~/map` is renewed after growing by this share.", minimum=0.0
    )
    path_poses: int = option(
        1000,
        "Newest poses in `~/path`, which is sent with every chunk; after `~/flush`, `~/finalize` "
        "and `~/load_map` it holds all of them once.",
        minimum=2,
    )
    depth: bool = option(
        True, "Publish `~/depth` and `~/confidence` of the newest frame of each chunk."
    )
    obstacles_rate: float = option(
        10.0,
        "With grid.enabled: how often `~/obstacles` is sent, also between chunks.",
        unit="Hz",
        minimum=0.5,
    )
    graph: bool = option(True, "Publish `~/graph` markers.")


@dataclass(frozen=True)
class WorkerConfig(Section):
    """Where and how the network runs."""

    mode: str = option(
        "auto",
        "thread of this process, or a process of its own, which cannot hold up the callbacks. auto "
        "takes a process for sfm and for networks on a CPU.",
        choices=("auto", "thread", "process"),
    )
    count: int = option(
        0, "Remote reconstruction nodes to use; 0 runs the network in this node.", minimum=0
    )
    stop_timeout: float = option(
        2.0,
        "How long stopping waits for the chunk in flight before giving it up.",
        unit="s",
        minimum=0.0,
        maximum=3.5,
    )
    max_failures: int = option(
        3, "Chunks failing in a row after which the worker reports an error.", minimum=1
    )


@dataclass(frozen=True)
class AutosaveConfig(Section):
    """Saving without being asked."""

    path: str = option("", "Default folder of saves; empty is ~/.ros/scal3r/<node name>.")
    on_shutdown: bool = option(False, "Save the map when the node is shut down or interrupted.")
    period: float = option(
        60.0,
        "With a path: save this often while the map changes, but never for more than a tenth of "
        "the time; 0 never.",
        unit="s",
        minimum=0.0,
    )
    overwrite: bool = option(
        False,
        "Also save into a folder that holds something else than a map; files that are not the "
        "map's are left alone.",
    )


@dataclass(frozen=True)
class ViewerConfig(Section):
    """Live view: a page in a web browser on this machine, or a rerun viewer."""

    enabled: bool = option(False, "Show the map while it grows.")
    kind: str = option(
        "page",
        "page serves one on localhost (needs the Python package viser), rerun sends to a viewer "
        "that runs at rerun_url (needs rerun-sdk).",
        choices=("page", "rerun"),
    )
    rerun_url: str = option(
        "rerun+http://127.0.0.1:9876/proxy",
        "With kind rerun: where the viewer listens, or file: and a path to record.",
    )
    port: int = option(
        8080, "Port to listen on; the next free one if it is taken.", minimum=1, maximum=65535
    )
    max_points: int = option(200000, "Most points shown.", minimum=1000)
    max_frusta: int = option(100, "Most camera frusta shown.", minimum=1)


@dataclass(frozen=True)
class NodeConfig(Config):
    """All parameters of `mapping_node`."""

    autostart: bool = option(
        True, "Configure and activate at start, for use without a lifecycle manager."
    )
    mode: str = option(
        "mapping",
        "What the node begins with: mapping, or localisation in a map that stays as it is. "
        "`~/set_mode` changes it, `~/localisation` tells it.",
        choices=("mapping", "localisation"),
    )
    load_path: str = option(
        "", "Saved map to load when the node is configured; empty begins with an empty map."
    )
    executor: str = option(
        "single",
        "Executor of the callbacks; multi has four threads and is for comparison.",
        choices=("single", "multi"),
    )
    input: NodeInputConfig = field(default_factory=NodeInputConfig)
    qos: QosConfig = field(default_factory=QosConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    autosave: AutosaveConfig = field(default_factory=AutosaveConfig)
    viewer: ViewerConfig = field(default_factory=ViewerConfig)

    def check(self) -> None:
        if self.memory.mode == "batch":
            raise ValueError("memory.mode batch is offline only; use stream or finalize")
