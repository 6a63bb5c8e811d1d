"""One city that is walked through several times, and an oracle that knows frames by their time."""

from dataclasses import replace

import numpy as np
from oracle import OracleReconstructor, Spoil, drive

from scal3r_ros.config import Config
from scal3r_ros.mapping.sim3 import rotation_exp
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.options import from_dict

OPTIONS = {
    "chunk.size": 12, "chunk.overlap": 6, "loop.min_gap": 20, "loop.window": 8,
    "loop.nms_window": 4, "loop.threshold": 0.6,
}  # fmt: skip
NOISY = Spoil(depth_noise=0.02, outliers=0.03, scale_drift=0.01, yaw_drift=0.003)


def config(**changes):
    return from_dict(Config, OPTIONS | {k.replace("__", "."): v for k, v in changes.items()})


def street(frames=48):
    """The way that a map is made of: a curve between houses, 0.4 m from frame to frame."""
    return drive(frames=frames, length=0.4 * frames, width=64, height=48, route="EN", wobble=0.01)


def beside(poses, metres=0.4, turn=0.1):
    """Another way along the same street."""
    other, time = poses.copy(), np.linspace(0.0, 6.0, len(poses))
    other[:, :2, 3] += metres * np.stack([np.sin(time), np.cos(1.3 * time)], axis=1)
    yaw = np.stack([0 * time, turn * np.sin(time + 1.0), 0 * time], axis=1)
    other[:, :3, :3] = other[:, :3, :3] @ rotation_exp(yaw)
    return other


def elsewhere(poses, block, number):
    """The same way through streets of the same shape, with other walls."""
    other = poses.copy()
    other[:, :2, 3] += block * np.array([37.0 + number, 11.0])
    return other


def joined(city, *ways):
    """All ways in one city; returns it and the frames of each way."""
    ends = np.cumsum([0, *(len(way) for way in ways)])
    whole = replace(city, T_world_camera=np.concatenate(ways))
    return whole, [range(a, b) for a, b in zip(ends, ends[1:])]


class TimedOracle(OracleReconstructor):
    """Knows frames by their stamps: a mapper numbers them as it likes."""

    def __init__(self, city, spoil=NOISY):
        super().__init__(city, spoil)
        self.index = {city.stamp_ns(i): i for i in range(len(city))}

    def reconstruct(self, chunk, contribute=True):
        kept = self._seen_together(chunk)
        frames = tuple(replace(f, id=self.index[f.stamp_ns]) for f in kept)
        known = replace(chunk, frames=frames, overlap_ids=())
        ids = tuple(frame.id for frame in kept)
        missing = tuple(i for i in chunk.frame_ids if i not in ids)
        return replace(super().reconstruct(known, contribute), frame_ids=ids, missing_ids=missing)

    def _seen_together(self, chunk):
        """Nobody can tell how a camera was carried that saw nothing meanwhile: of a chunk that it
        was carried away in, the longer half is reconstructed."""
        if chunk.kind == "loop":
            return chunk.frames
        at = self.city.T_world_camera[[self.index[f.stamp_ns] for f in chunk.frames], :2, 3]
        jumps = np.flatnonzero(np.linalg.norm(np.diff(at, axis=0), axis=1) > 4.0) + 1
        parts = np.split(np.arange(len(chunk.frames)), jumps)
        return tuple(chunk.frames[i] for i in max(parts, key=len))


def walk(mapper, city, frames, starts=True):
    """Give frames of the city to a mapper, as a stream of their own if it `starts`."""
    updates = mapper.start_session() if starts else []
    for i in frames:
        updates += mapper.add(replace(city.frame(i), id=mapper.next_frame_id))
    return updates + mapper.flush()


def told(updates):
    """The newest pose of every stamp."""
    return {pose.stamp_ns: pose for update in updates for pose in update.poses}


def events(updates, *names):
    return [e for u in updates for e in u.events if e.name in names]


def world_from_map(mapper, city):
    """The similarity that puts the map's own cameras where they were."""
    truth = {city.stamp_ns(i): city.T_world_camera[i] for i in range(len(city))}
    poses = mapper.trajectory()
    mine = np.array([pose.T_map_camera[:3, 3] for pose in poses])
    true = np.array([truth[pose.stamp_ns][:3, 3] for pose in poses])
    return weighted_similarity(mine, true, np.ones(len(mine)))


def errors(mapper, city, poses):
    """Metres and degrees by which poses in the map miss the truth."""
    S = world_from_map(mapper, city)
    truth = {city.stamp_ns(i): city.T_world_camera[i] for i in range(len(city))}
    moved, turned = [], []
    for stamp, pose in poses.items():
        T = S.move_pose(pose.T_map_camera)
        R = T[:3, :3].T @ truth[stamp][:3, :3]
        moved.append(np.linalg.norm(T[:3, 3] - truth[stamp][:3, 3]))
        turned.append(np.degrees(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))))
    return np.array(moved), np.array(turned)
