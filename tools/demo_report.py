"""How good the demo's trajectory is, a picture of it, and the summary."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import demo_recording
import numpy as np

from scal3r_ros import rigid
from scal3r_ros.io.tracked import read_tracked
from scal3r_ros.pipeline.live_score import score_images
from scal3r_ros.train.true_surface import MapAccuracy, compare, true_surface


@dataclass(frozen=True)
class Accuracy:
    """Absolute trajectory error after a similarity alignment, in the truth's units (metres)."""

    ate_rmse: float
    ate_max: float
    path_length: float
    poses: int
    """Poses compared."""
    scale: float
    """Metres per map unit that the alignment found."""
    rotation: tuple[tuple[float, ...], ...]
    translation: tuple[float, ...]
    """With `scale`: point of the truth's frame = scale * rotation @ point of the map +
    translation."""

    @property
    def percent(self) -> float:
        """ATE as a share of the path's length."""
        return 100 * self.ate_rmse / self.path_length


def evaluate(trajectory: Path, stamps_ns: np.ndarray, truth: np.ndarray, picture: Path) -> Accuracy:
    """Compare a TUM file with true poses (N, 7) and draw both into `picture`."""
    from evo.core import metrics, sync
    from evo.core.trajectory import PoseTrajectory3D
    from evo.tools import file_interface

    reference = PoseTrajectory3D(
        positions_xyz=truth[:, :3],
        orientations_quat_wxyz=np.roll(truth[:, 3:], 1, axis=1),
        timestamps=stamps_ns / 1e9,
    )
    estimate = file_interface.read_tum_trajectory_file(str(trajectory))
    reference, estimate = sync.associate_trajectories(reference, estimate, max_diff=0.01)
    rotation, translation, scale = estimate.align(reference, correct_scale=True)
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data((reference, estimate))
    draw(reference.positions_xyz, estimate.positions_xyz, picture)
    return Accuracy(
        ate_rmse=float(error.get_statistic(metrics.StatisticsType.rmse)),
        ate_max=float(error.get_statistic(metrics.StatisticsType.max)),
        path_length=float(reference.path_length),
        poses=int(reference.num_poses),
        scale=float(scale),
        rotation=tuple(map(tuple, rotation.tolist())),
        translation=tuple(translation.tolist()),
    )


def live_facts(recording, out: Path) -> dict[str, float]:
    """Of the poses told between chunks: share and latency, and with ground truth their error.
    Empty if there were none."""
    path = out / "tracked.csv"
    images = read_tracked(path) if path.is_file() else []
    late = [image.seconds for image in images if image.seconds is not None]
    if len(late) < 3:
        return {}
    facts = {
        "images": len(images),
        "share": len(late) / len(images),
        "latency_median": float(np.median(late)),
        "latency_p95": float(np.percentile(late, 95)),
    }
    if not recording.truth_topic:
        return facts
    stamps, truth = demo_recording.true_trajectory(recording)
    poses = rigid.from_parts(rigid.rotation_matrix(truth[:, 3:]), truth[:, :3])
    score = score_images(images, np.asarray(stamps), poses)
    return facts | {"ate_rmse": score.ate_rmse, "ate_percent": score.ate_percent}


def describe_live(live: dict[str, float]) -> str:
    """One line of the summary."""
    text = (
        f"{100 * live['share']:.0f} % of {live['images']:.0f} images since the first chunk, "
        f"{1e3 * live['latency_median']:.0f} ms after they came (95 %: "
        f"{1e3 * live['latency_p95']:.0f} ms)"
    )
    if "ate_rmse" in live:
        text += f", ATE {live['ate_rmse']:.3f} m ({live['ate_percent']:.2f} %)"
    return text


def compare_map(cloud: Path, accuracy: Accuracy) -> MapAccuracy:
    """How well the points of a PLY file lie on the true surface of the bundled recording."""
    from plyfile import PlyData

    vertices = PlyData.read(cloud)["vertex"]
    points = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    aligned = accuracy.scale * points @ np.array(accuracy.rotation).T + accuracy.translation
    return compare(aligned, true_surface())


def count_poses(trajectory: Path) -> int:
    """Lines of a TUM file that are no comment."""
    return sum(not line.startswith("#") for line in trajectory.read_text().splitlines())


def draw(truth: np.ndarray, estimate: np.ndarray, picture: Path) -> None:
    """Both trajectories in the two directions in which they extend most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    centre = truth.mean(axis=0)
    axes = np.linalg.svd(truth - centre, full_matrices=False)[2][:2]
    figure, plot = pyplot.subplots(figsize=(7, 7))
    for points, style, label in ((truth, "k--", "ground truth"), (estimate, "C1-", "estimated")):
        plot.plot(*((points - centre) @ axes.T).T, style, label=label)
    plot.set_aspect("equal")
    plot.set_xlabel("m")
    plot.set_ylabel("m")
    plot.grid(alpha=0.3)
    plot.legend()
    figure.savefig(picture, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def write_summary(
    folder: Path, facts: dict, accuracy: Accuracy | None, map_accuracy: MapAccuracy | None
) -> str:
    """Text of the summary, which is also written to summary.json."""
    entries = dict(facts)
    if accuracy is not None:
        entries["accuracy"] = {**asdict(accuracy), "percent": accuracy.percent}
    if map_accuracy is not None:
        entries["map_accuracy"] = asdict(map_accuracy)
    (folder / "summary.json").write_text(json.dumps(entries, indent=2) + "\n")
    lines = [
        f"reconstructor   {facts['reconstructor']}",
        f"frames          {facts['frames_mapped']} in the map of "
        f"{facts['images'] - facts['frames_gated']} taken, {facts['images']} in the bag, "
        f"{facts['frames_dropped']} dropped",
        f"map             {facts['points']} points, {facts['corrections']} corrections by loops",
    ]
    if accuracy is None:
        lines.append("accuracy        unknown, the bag has no ground truth")
    else:
        lines.append(
            f"ATE             {accuracy.ate_rmse:.3f} m RMSE over {accuracy.path_length:.1f} m "
            f"({accuracy.percent:.2f} %), {accuracy.poses} poses, similarity-aligned"
        )
    if map_accuracy is not None:
        lines.append(
            f"points          {100 * map_accuracy.within_2_cm:.0f} % within 2 cm and "
            f"{100 * map_accuracy.within_5_cm:.0f} % within 5 cm of the true surface, of which "
            f"{100 * map_accuracy.completeness:.0f} % is mapped"
        )
    if facts.get("live"):
        lines.append(f"live poses      {describe_live(facts['live'])}")
    lines.append(
        f"time            {facts['seconds']:.0f} s for {facts['bag_seconds']:.0f} s of video"
    )
    for concern, message in facts["problems"].items():
        lines.append(f"note            {concern}: {message}")
    lines.append("files           " + ", ".join(sorted(facts["files"])))
    lines.append(f"folder          {folder}")
    return "\n".join(lines)
