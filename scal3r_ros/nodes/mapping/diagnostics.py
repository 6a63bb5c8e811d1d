"""What the node says about its health on /diagnostics: one status per concern, with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from scal3r_ros.pipeline.localisation import Whereabouts
from scal3r_ros.records import ScaleEstimate

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
IN_ROW = 3
"""So many failures one after the other are no accident but a state: an error with its remedy."""
HOPS = ("received", "unaccepted", "gated", "queued", "dropped", "decoded", "malformed", "processed")


@dataclass(frozen=True)
class Concern:
    """One status: its level is the worst of what was found, its message names that first."""

    name: str
    findings: Sequence[tuple[bytes, str]]
    """(level, sentence), empty when all is well."""
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def level(self) -> bytes:
        return max((level for level, _ in self.findings), default=OK)

    @property
    def message(self) -> str:
        told = sorted(
            (finding for finding in self.findings if finding[0] > OK or self.level == OK),
            key=lambda finding: finding[0],
            reverse=True,
        )
        return "; ".join(sentence for _, sentence in told) or "ok"


@dataclass(frozen=True)
class InputHealth:
    """What `input_concern` looks at."""

    active: bool
    topic: str
    rate: float
    age: float | None
    timeout: float
    encoding: str
    counts: Mapping[str, int]
    incompatible: Sequence[str] = ()
    calibration_problem: str = ""
    calibrated: bool = False
    """Whether an earlier, good calibration stays in force."""
    recent_drops: int = 0
    recent_malformed: Mapping[str, int] = field(default_factory=dict)
    """By kind, messages that were left out since the last report."""
    recent_lost: Mapping[str, int] = field(default_factory=dict)
    """By kind, messages that the middleware lost since the last report."""
    failed_callbacks: int = 0
    encoding_problem: str = ""
    unstamped_in_row: int = 0
    malformed_in_row: int = 0
    malformed_reason: str = ""
    callback_seconds: Sequence[float] = ()
    """Of the last images."""


def input_concern(health: InputHealth) -> Concern:
    """Frames per second, age and per-hop counters."""
    findings = [(WARN, sentence) for sentence in health.incompatible]
    if not health.active:
        findings.append((OK, "not active"))
    elif health.age is None:
        findings.append((ERROR, f"no image yet on {health.topic}; is the camera running, the topic "
                         "remapped?"))  # fmt: skip
    elif health.age > health.timeout:
        findings.append((ERROR, f"no image for {health.age:.1f} s on {health.topic}"))
    if health.encoding_problem:
        findings.append((ERROR, health.encoding_problem))
    if health.unstamped_in_row >= IN_ROW:
        findings.append((ERROR, f"no image on {health.topic} has a time stamp; the camera's driver "
                         "must fill header.stamp"))  # fmt: skip
    if health.malformed_in_row >= IN_ROW:
        findings.append((ERROR, f"no image can be used, the last because: "
                         f"{health.malformed_reason}"))  # fmt: skip
    if health.recent_drops:
        findings.append((WARN, f"{health.recent_drops} frames dropped since the last report; raise "
                         "gate.stride or lower gate.max_rate"))  # fmt: skip
    if health.calibration_problem:
        findings.append(_calibration_finding(health))
    for kind, count in sorted(health.recent_malformed.items()):
        findings.append((WARN, f"{count} messages could not be used ({kind}); the log says why"))
    for kind, count in sorted(health.recent_lost.items()):
        findings.append((WARN, f"{count} messages were lost on the way ({kind}): let the publisher "
                         "offer reliable, or raise net.core.rmem_max"))  # fmt: skip
    if health.failed_callbacks:
        findings.append((ERROR, f"{health.failed_callbacks} callbacks failed; the log says where"))
    values = {
        "rate [Hz]": f"{health.rate:.2f}",
        "age [s]": "none" if health.age is None else f"{health.age:.2f}",
        "encoding": health.encoding or "unknown",
        "failed callbacks": health.failed_callbacks,
        **_slowest(health.callback_seconds),
        **{hop: health.counts.get(hop, 0) for hop in HOPS},
        **{key: value for key, value in health.counts.items() if key not in HOPS},
    }
    return Concern("input", findings, values)


def _slowest(seconds: Sequence[float]) -> dict[str, str]:
    if not seconds:
        return {}
    return {"callback p99 [ms]": f"{1e3 * np.percentile(seconds, 99):.2f}"}


def _calibration_finding(health: InputHealth) -> tuple[bytes, str]:
    problem = health.calibration_problem
    if health.calibrated:
        return WARN, f"{problem}; the last good calibration stays in force"
    return ERROR, (
        f"{problem}; images are mapped as they come: correct the camera's calibration, or set "
        "input.camera_info to false if they are undistorted"
    )


def inference_concern(
    state: str,
    reason: str,
    chunk_seconds: Sequence[float],
    video_seconds: Sequence[float],
    queued: int,
    failures_in_row: int,
    events: Mapping[str, int],
    limits: str = "",
    unmapped_in_row: int = 0,
    unmapped_reason: str = "",
    progress: Sequence[str] = (),
) -> Concern:
    """Speed and trouble of the worker; `limits` is what its network is known not to do, `progress`
    tells of services that wait for it."""
    findings: list[tuple[bytes, str]] = [(WARN, limits)] if limits else []
    findings += [(OK, sentence) for sentence in progress]
    if state == "failed":
        findings.append((ERROR, reason))
    elif state == "loading":
        findings.append((WARN, reason))
    elif state == "none":
        findings.append((OK, "not configured"))
    elif reason:
        findings.append((ERROR, reason))
    if failures_in_row:
        findings.append((WARN, f"{failures_in_row} chunks failed in a row"))
    if unmapped_in_row >= IN_ROW:
        findings.append((ERROR, f"{unmapped_in_row} chunks in a row could not be mapped, the last "
                         f"because: {unmapped_reason}; move slower, look at texture, or lower "
                         "gate.stride"))  # fmt: skip
    values: dict[str, object] = {"state": state, "queue depth": queued, **events}
    values["services in progress"] = "; ".join(progress) or "none"
    if chunk_seconds:
        values["last chunk [s]"] = f"{chunk_seconds[-1]:.3f}"
        values["p95 chunk [s]"] = f"{np.percentile(chunk_seconds, 95):.3f}"
        video = sum(video_seconds)
        values["real-time factor"] = f"{video / max(sum(chunk_seconds), 1e-9):.2f}"
    return Concern("inference", findings, values)


def gpu_concern(
    memory: Mapping[str, float] | None, device: str, events: Mapping[str, int]
) -> Concern:
    """Memory of the device; `memory` in MB, None without a GPU."""
    findings = []
    shrunk = events.get("chunk_shrunk", 0)
    if shrunk:
        findings.append(
            (WARN, f"out of memory {shrunk} times, chunks were shrunk; lower chunk.size")
        )
    values: dict[str, object] = {"device": device, "OOM retries": shrunk}
    if memory is None:
        findings.append((OK, "no GPU in use"))
    else:
        values |= {f"{name} [MB]": f"{value:.0f}" for name, value in memory.items()}
    return Concern("gpu", findings, values)


def map_concern(points: int, nbytes: int, budget_mb: float, revision: int, frames: int,
                alignment: str) -> Concern:  # fmt: skip
    """Size of the map against its budget."""
    findings = []
    if nbytes > budget_mb * 1e6:
        findings.append((WARN, f"the map exceeds its budget of {budget_mb:.0f} MB"))
    values = {
        "points": points,
        "memory [MB]": f"{nbytes / 1e6:.1f}",
        "budget [MB]": f"{budget_mb:.0f}",
        "revision": revision,
        "frames": frames,
        "alignment": alignment,
    }
    return Concern("map", findings, values)


def localisation_concern(
    mode: str, known: Whereabouts | None, active: bool, now_ns: int
) -> Concern:
    """Whether the camera's place in the map is known; if not, since when and why."""
    values: dict[str, object] = {"mode": mode}
    if known is None:
        return Concern("localisation", [], values)
    lost = known.state != "localised"
    seconds = max(now_ns - known.since_ns, 0) * 1e-9 if known.since_ns else 0.0
    values |= {
        "state": known.state,
        "since [s]": f"{known.since_ns * 1e-9:.3f}",
        "for [s]": f"{seconds:.1f}",
        "reason": known.reason,
        "compared": known.compared or "nothing yet",
        "last tied to the map [s]": f"{known.checked_ns * 1e-9:.3f}",
        "sigma": f"{np.sqrt(np.trace(known.covariance_at(now_ns)[:3, :3])):.3g}",
    }
    text = f"lost for {seconds:.1f} s: {known.reason}; nothing goes to /tf"
    return Concern("localisation", [(WARN, text)] if lost and active else [], values)


def scale_concern(scale: ScaleEstimate) -> Concern:
    """Whether the map is in metres; `value` is how long one of its units is now."""
    values: dict[str, object] = {"source": scale.source, "frozen": scale.frozen}
    if not scale.known:
        values |= {"value": "unknown", "sigma": "unknown"}
        message = "scale unknown: the map is in units of its own, not metres; set scale.source"
        return Concern("scale", [(WARN, message)], values)
    values |= {"value": f"{scale.value:.6g}", "sigma": f"{np.sqrt(scale.variance):.3g}"}
    if scale.frozen:
        return Concern("scale", [], values | {"applied": f"{scale.applied:.6g}"})
    message = (
        f"the map is not in metres yet: its scale is known to "
        f"{100 * np.sqrt(scale.variance) / scale.value:.1f} %; drive on, or raise "
        f"scale.max_relative_sigma"
    )
    return Concern("scale", [(WARN, message)], values)


def time_concern(sim_time: bool, now_ns: int, counts: Mapping[str, int],
                 last_jump_ns: int | None) -> Concern:  # fmt: skip
    """Clock and stamps."""
    findings = []
    if sim_time and now_ns == 0:
        findings.append(
            (WARN, "use_sim_time is set but /clock is silent; play the bag with --clock")
        )
    values: dict[str, object] = {"use_sim_time": sim_time, **counts}
    values["last jump [s]"] = "none" if last_jump_ns is None else f"{-last_jump_ns * 1e-9:.3f}"
    return Concern("time", findings, values)


def tf_concern(
    mode: str,
    problem: str,
    refused: bool,
    active: bool,
    correction: tuple[float, float],
    unseen: float = 0.0,
    latency: Sequence[float] = (),
    buffer: float = 60.0,
) -> Concern:
    """Whether transforms are broadcast, and if not, why; for `unseen` seconds map to odom has been
    repeated without an image. `latency`: seconds from an image to its pose, of the last chunks;
    listeners keep transforms for `buffer` seconds."""
    findings = [(ERROR if refused else WARN, problem)] if problem and active else []
    if unseen and active:
        findings.append((WARN, f"no image for {unseen:.1f} s: {mode} is repeated as it was, and "
                         "the robot's place in the map drifts as its odometry does"))  # fmt: skip
    metres, radians = correction
    values = {
        "mode": mode,
        "correction left [m]": f"{metres:.3f}",
        "correction left [rad]": f"{radians:.4f}",
    }
    if latency:
        late = float(np.percentile(latency, 95))
        values |= {"latency [s]": f"{np.median(latency):.2f}", "latency p95 [s]": f"{late:.2f}"}
        if late > buffer and active:
            findings.append((WARN, f"poses come {late:.0f} s after their images, later than "
                             f"tf.buffer ({buffer:g} s): lower gate.max_rate or queue.max_delay, "
                             "or take a smaller chunk.size"))  # fmt: skip
    return Concern("tf", findings, values)


def tracking_concern(
    lost: str, active: bool, counts: Mapping[str, int], latency: Sequence[float]
) -> Concern:
    """Whether images get a pose between two chunks, and if not, why; `latency` in seconds."""
    findings = [(WARN, f"no live pose: {lost}")] if lost and active else []
    if counts.get("failed"):
        findings.append((ERROR, f"{counts['failed']} images failed; the log says where"))
    values: dict[str, object] = dict(counts)
    if latency:
        values["latency p95 [s]"] = f"{np.percentile(latency, 95):.3f}"
    return Concern("tracking", findings, values)


def grid_concern(refusal: str, dropped: int) -> Concern:
    """Whether there is an occupancy grid, and whether it holds the whole map."""
    findings = [(WARN, refusal)] if refusal else []
    if dropped:
        findings.append((WARN, f"{dropped} chunks were left out of the grid to keep "
                         "grid.max_megabytes; raise it"))  # fmt: skip
    return Concern("grid", findings, {"chunks left out": dropped})


def status_name(node) -> str:
    """Name of a node in statuses, with its namespace: of two robots or workers each has its own."""
    return node.get_fully_qualified_name().lstrip("/")


def diagnostic_array(
    node_name: str, hardware_id: str, concerns: Sequence[Concern], stamp
) -> DiagnosticArray:
    """Message of all concerns."""
    array = DiagnosticArray()
    array.header.stamp = stamp
    for concern in concerns:
        array.status.append(
            DiagnosticStatus(
                level=concern.level,
                name=f"{node_name}: {concern.name}",
                message=concern.message,
                hardware_id=hardware_id,
                values=[KeyValue(key=k, value=str(v)) for k, v in concern.values.items()],
            )
        )
    return array
