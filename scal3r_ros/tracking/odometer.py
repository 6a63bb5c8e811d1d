"""Pose after pose from observed corners: some have a place from mapped depth, others get one.

It starts at a mapped image and is replayed from there through what was observed since, so that its
scale is the submap's. Between key images a pose is found from known places; at key images poses
and places are adjusted together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.tracking.corners import Observations
from scal3r_ros.tracking.history import History
from scal3r_ros.tracking.interface import Submap, TrackingLost
from scal3r_ros.tracking.landmarks import places_in_submap, rays_of
from scal3r_ros.tracking.resection import TooFewPoints, resect
from scal3r_ros.tracking.window import KeyImage, Places, Window

_KEY_MOTION = 0.04
"""Median motion of the bearings since the last key image that makes another one."""
_KEY_SHARE = 0.5
"""Share of corners with a place below which an image is a key image in any case."""
_MAPPED_IMAGES = 4
"""Images of the submap that begin the window."""


class Odometer:
    """Follows the camera from a mapped image on; `reached_ns` is how far it has come."""

    def __init__(
        self,
        window: Window,
        places: Places,
        K: np.ndarray,
        pose: np.ndarray,
        reached_ns: int,
        anchored_ns: int,
    ) -> None:
        self.pose, self.reached_ns, self.anchored_ns = pose, reached_ns, anchored_ns
        self._window, self._places, self._K = window, places, K
        self._motion = np.eye(4)
        """T_before_now of the last step, with which the next pose is guessed."""

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
        places = window.adjusted(Places(ids, points, np.ones(len(ids), bool), np.ones(len(ids))))
        stamp_ns = int(submap.stamps_ns[known[-1]])
        return cls(window, places, K, images[-1].T_map_camera, stamp_ns, stamp_ns)

    def advance(self, observations: Observations) -> np.ndarray:
        """T_map_camera (4, 4) of the next image; raises `TrackingLost`."""
        rays = rays_of(observations.pixels, self._K)
        mine, placed = self._places.of(observations.ids)
        guess = self.pose @ self._motion
        try:
            found = resect(
                self._places.points[placed],
                rays[mine],
                self._places.trust[placed],
                guess,
                self._K[0, 0],
            )
        except TooFewPoints as error:
            raise TrackingLost(
                f"{error}; the next chunk starts tracking again from mapped images"
            ) from error
        pose = found.T_map_camera
        self._forget(placed[~found.inliers])
        if self._is_key(observations, rays, len(mine)):
            self._window.add(KeyImage(pose, observations.ids, rays, False))
            self._places = self._window.adjusted(self._places)
            pose = self._window.newest.T_map_camera
        self._motion = rigid.inverse(self.pose) @ pose
        self.pose, self.reached_ns = pose, observations.stamp_ns
        return self.pose

    def state(self) -> dict[str, np.ndarray]:
        arrays = {
            "place_ids": self._places.ids,
            "place_points": self._places.points,
            "place_mapped": self._places.mapped,
            "place_trust": self._places.trust,
            "K": self._K,
            "pose": self.pose,
            "motion": self._motion,
            "times": np.array([self.reached_ns, self.anchored_ns], np.int64),
        }
        return {name: value.copy() for name, value in arrays.items()} | self._window.state()

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray]) -> Odometer:
        own = {name: value.copy() for name, value in state.items()}
        places = Places(*(own[f"place_{name}"] for name in ("ids", "points", "mapped", "trust")))
        window = Window.restored(own, own["K"][0, 0])
        odometer = cls(window, places, own["K"], own["pose"], *own["times"].tolist())
        odometer._motion = own["motion"]
        return odometer

    def _forget(self, placed: np.ndarray) -> None:
        """Corners that strayed are not what they were."""
        kept = np.ones(len(self._places.ids), bool)
        kept[placed] = False
        self._places = self._places.take(kept)

    def _is_key(self, observations: Observations, rays: np.ndarray, placed: int) -> bool:
        if placed < _KEY_SHARE * len(rays):
            return True
        last = self._window.newest
        _, mine, theirs = np.intersect1d(
            observations.ids, last.ids, assume_unique=True, return_indices=True
        )
        motion = np.linalg.norm(rays[mine] - last.rays[theirs], axis=1)
        return not len(motion) or float(np.median(motion)) > _KEY_MOTION
