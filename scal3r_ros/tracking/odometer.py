"""Pose after pose from observed corners, from a mapped image on.

It starts at a submap, so that its scale is the submap's. Between key images a pose is found from
known places; at key images poses and places are adjusted together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.tracking.corners import Observations
from scal3r_ros.tracking.history import History
from scal3r_ros.tracking.interface import Submap, TrackingLost
from scal3r_ros.tracking.landmarks import places_in_submap, rays_of
from scal3r_ros.tracking.resection import TooFewPoints, resect
from scal3r_ros.tracking.told_path import ToldPath
from scal3r_ros.tracking.window import KeyImage, Places, Window

_KEY_WAY = 0.05
"""Way since the last key image that makes another one, relative to the depth of the places."""
_KEY_TURN = 0.12
"""The same in radians."""
_KEY_SHARE = 0.6
"""Share of corners with a place below which an image is a key image in any case."""
_MAPPED_IMAGES = 6
"""Images of the submap that begin the window."""
_LARGEST_STEP = (0.2, 0.2)
"""Largest difference from a steady motion: share of the depth, radians."""
_STILL = 0.1
"""Pixels: motion of the corners below which the camera has not moved."""


class Odometer:
    """Follows the camera; `reached_ns` is how far it has come."""

    def __init__(self, window: Window, places: Places, K: np.ndarray, reached_ns: int) -> None:
        self.path = ToldPath()
        self.pose, self.reached_ns = window.newest.T_map_camera, reached_ns
        self.at_key = True
        """Whether the newest image is a key image."""
        self._window, self._places, self._K = window, places, K
        self._motion = np.eye(4)
        """T_before_now of the last step, with which the next pose is guessed."""
        self._seen_ids, self._seen = window.newest.ids, window.newest.rays
        """What the camera saw when it moved last."""

    @classmethod
    def at_submap(cls, submap: Submap, history: History, K: np.ndarray) -> Odometer:
        """At the newest image of `submap` whose observations are known; raises `TrackingLost`."""
        seen = [history.at(int(stamp)) for stamp in submap.stamps_ns]
        known = [i for i, observations in enumerate(seen) if observations is not None]
        if not known:
            raise TrackingLost("the newest submap shows no image that the tracker has seen")
        chosen = np.unique(np.linspace(0, len(known) - 1, _MAPPED_IMAGES).round().astype(int))
        images = []
        for i in (known[place] for place in chosen):
            observations = seen[i]
            assert observations is not None
            rays = rays_of(observations.pixels, K)
            images.append(KeyImage(submap.T_map_camera[i], observations.ids, rays, True))
        found = places_in_submap(submap, seen, K)
        ids = np.array(sorted(found), np.int64)
        points = np.array([found[i] for i in ids.tolist()]).reshape(-1, 3)
        window = Window(images, K[0, 0])
        places = window.adjusted(Places(ids, points, np.ones(len(ids))))
        odometer = cls(window, places, K, int(submap.stamps_ns[known[-1]]))
        for i in known:
            odometer.path.add(int(submap.stamps_ns[i]), submap.T_map_camera[i])
        return odometer

    @property
    def places(self) -> Places:
        """Where the corners are that it goes by."""
        return self._places

    @property
    def camera(self) -> np.ndarray:
        """Pinhole matrix (3, 3) of the images."""
        return self._K

    def advance(self, observations: Observations) -> np.ndarray:
        """T_map_camera (4, 4) of the next image; raises `TrackingLost`."""
        rays = rays_of(observations.pixels, self._K)
        self.at_key = False
        if self._stands_still(observations.ids, rays):
            self._motion = np.eye(4)
        else:
            pose = self._found(observations, rays)
            self._motion = rigid.inverse(self.pose) @ pose
            self.pose = pose
            self._seen_ids, self._seen = observations.ids, rays
        self.reached_ns = observations.stamp_ns
        self.path.add(observations.stamp_ns, self.pose)
        return self.pose

    def begin_again(self, observations: Observations, pose: np.ndarray, places: Places) -> None:
        """Go on from an image whose `pose` was found from `places` after a loss."""
        rays = rays_of(observations.pixels, self._K)
        self._window = Window([KeyImage(pose, observations.ids, rays, False)], self._K[0, 0])
        self._places, self._motion, self.pose = places, np.eye(4), pose
        self._seen_ids, self._seen = observations.ids, rays
        self.reached_ns, self.at_key = observations.stamp_ns, True
        self.path.add(observations.stamp_ns, pose)

    def move(self, S: Sim3) -> None:
        """Tell everything in another frame."""
        self._window.move(S)
        self.path.move(S)
        self._places = self._places.moved(S)
        self.pose = rigid.orthonormal(S.move_pose(self.pose))
        self._motion = self._motion.copy()
        self._motion[:3, 3] *= S.scale

    def state(self) -> dict[str, np.ndarray]:
        arrays = {
            "place_ids": self._places.ids,
            "place_points": self._places.points,
            "place_trust": self._places.trust,
            "K": self._K,
            "pose": self.pose,
            "motion": self._motion,
            "last_ids": self._seen_ids,
            "last_rays": self._seen,
            "numbers": np.array([self.reached_ns, self.at_key], np.int64),
        }
        own = {name: value.copy() for name, value in arrays.items()}
        return own | self._window.state() | self.path.state()

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray]) -> Odometer:
        own = {name: value.copy() for name, value in state.items()}
        places = Places(*(own[f"place_{name}"] for name in ("ids", "points", "trust")))
        reached_ns, at_key = own["numbers"].tolist()
        odometer = cls(Window.restored(own, own["K"][0, 0]), places, own["K"], reached_ns)
        odometer.path = ToldPath.restored(own)
        odometer.pose, odometer._motion, odometer.at_key = own["pose"], own["motion"], bool(at_key)
        odometer._seen_ids, odometer._seen = own["last_ids"], own["last_rays"]
        return odometer

    def _stands_still(self, ids: np.ndarray, rays: np.ndarray) -> bool:
        _, mine, theirs = np.intersect1d(
            ids, self._seen_ids, assume_unique=True, return_indices=True
        )
        if len(mine) < 0.8 * len(self._seen_ids) or not len(mine):
            return False
        motion = np.linalg.norm(rays[mine] - self._seen[theirs], axis=1)
        return float(np.percentile(motion, 90)) < _STILL / self._K[0, 0]

    def _found(self, observations: Observations, rays: np.ndarray) -> np.ndarray:
        """The pose from what has a place; at key images adjusted with the others."""
        mine, placed = self._places.of(observations.ids)
        try:
            found = resect(
                self._places.points[placed],
                rays[mine],
                self._places.trust[placed],
                self.pose @ self._motion,
                self._K[0, 0],
            )
        except TooFewPoints as error:
            raise TrackingLost(
                f"{error}; a known view or the next chunk starts tracking again"
            ) from error
        depth = self._depth(found.T_map_camera, placed[found.inliers])
        self._check_step(found.T_map_camera, depth)
        self._forget(placed[~found.inliers])
        if not self._is_key(found.T_map_camera, depth, len(mine) / max(len(rays), 1)):
            return found.T_map_camera
        self._window.add(KeyImage(found.T_map_camera, observations.ids, rays, False))
        self._places = self._window.adjusted(self._places)
        self.at_key = True
        return self._window.newest.T_map_camera

    def _check_step(self, pose: np.ndarray, depth: float) -> None:
        """Points that agree on an impossible motion are wrong together."""
        rest = rigid.inverse(self.pose @ self._motion) @ pose
        turn = float(np.arccos(np.clip((np.trace(rest[:3, :3]) - 1) / 2, -1, 1)))
        way = float(np.linalg.norm(rest[:3, 3])) / max(depth, 1e-9)
        if way > _LARGEST_STEP[0] or turn > _LARGEST_STEP[1]:
            raise TrackingLost(
                f"the known points would have the camera jump by {way:.2f} of their depth and "
                f"{np.degrees(turn):.0f} degrees; a known view or the next chunk starts tracking "
                f"again"
            )

    def _depth(self, pose: np.ndarray, placed: np.ndarray) -> float:
        """Median depth of places."""
        return float(np.median((self._places.points[placed] - pose[:3, 3]) @ pose[:3, 2]))

    def _forget(self, placed: np.ndarray) -> None:
        """Corners that strayed are not what they were."""
        kept = np.ones(len(self._places.ids), bool)
        kept[placed] = False
        self._places = self._places.take(kept)

    def _is_key(self, pose: np.ndarray, depth: float, share: float) -> bool:
        rest = rigid.inverse(self._window.newest.T_map_camera) @ pose
        turn = np.arccos(np.clip((np.trace(rest[:3, :3]) - 1) / 2, -1, 1))
        way = float(np.linalg.norm(rest[:3, 3]))
        return share < _KEY_SHARE or way > _KEY_WAY * depth or float(turn) > _KEY_TURN
