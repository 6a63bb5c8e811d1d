"""The last key images and the corners they see, adjusted together (bundle adjustment).

Poses and places that are found from each other agree with each other's errors; only together, over
many bearings, do they stay right. Mapped images stay, and so do the oldest, which hold the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid
from scal3r_ros.mapping.sim3 import Sim3

_LENGTH = 10
_FIXED = 3
"""Oldest images that stay: they hold place, direction and scale."""
_ROUNDS = 6
_REACH = 2.0
"""Pixels at which a bearing counts a quarter."""
_MIN_PARALLAX = np.radians(1.5)
"""Angle between sightings below which a new place is put at the typical distance."""
_FULL_PARALLAX = np.radians(6.0)
"""Angle between sightings from which on a place is trusted fully."""
_LEAST_TRUST = 0.0025
_KNOWN = 0.25
"""Trust from which on a place stays when the window has lost the sightings that it came from."""
_DEPTH_SIGMA = 0.5
"""Standard deviation of a distance before it is measured, relative to it."""
_MAX_SHIFT, _MAX_TURN = 0.1, 0.1
"""Largest correction of the newest pose: share of the typical depth, radians."""


@dataclass(frozen=True)
class KeyImage:
    """One image of the window."""

    T_map_camera: np.ndarray
    ids: np.ndarray
    """(N,) int64, rising."""
    rays: np.ndarray
    """(N, 2)."""
    mapped: bool
    """Its pose is the map's."""


@dataclass(frozen=True)
class Places:
    """Where corners are."""

    ids: np.ndarray
    """(L,) int64, rising."""
    points: np.ndarray
    """(L, 3) in the map."""
    trust: np.ndarray
    """(L,) how much a place counts for the pose of an image outside the window, 0 to 1: one seen
    under a small angle is as uncertain along it as the poses it was found from."""

    def take(self, rows: np.ndarray) -> Places:
        return Places(self.ids[rows], self.points[rows], self.trust[rows])

    def moved(self, S: Sim3) -> Places:
        """The same places in another frame."""
        return Places(self.ids, S.apply(self.points), self.trust)

    def of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `ids` of corners that have a place, and positions of their places."""
        _, mine, theirs = np.intersect1d(ids, self.ids, assume_unique=True, return_indices=True)
        return mine, theirs


@dataclass(frozen=True)
class _Sightings:
    """Every bearing of a corner with a place, as positions of image and place."""

    image: np.ndarray
    place: np.ndarray
    rays: np.ndarray


class Window:
    """Key images, oldest first."""

    def __init__(self, images: list[KeyImage], focal: float) -> None:
        self._images, self._focal = images, focal

    @property
    def newest(self) -> KeyImage:
        return self._images[-1]

    def add(self, image: KeyImage) -> None:
        """Append a key image; the oldest leaves."""
        self._images = [*self._images, image][-_LENGTH:]

    def move(self, S: Sim3) -> None:
        """Tell everything in another frame."""
        self._images = [
            KeyImage(S.move_pose(image.T_map_camera), image.ids, image.rays, image.mapped)
            for image in self._images
        ]

    def adjusted(self, places: Places) -> Places:
        """Better `places` of what the window sees, new ones included; betters the poses."""
        places = self._with_new(places)
        seen = self._sightings(places)
        poses = rigid.inverse(np.stack([image.T_map_camera for image in self._images]))
        points, damping = places.points, 1e-3
        cost = self._cost(poses, points, seen)
        for _ in range(_ROUNDS):
            step = self._step(poses, points, seen, damping)
            moved = _moved(poses, step[0]), points + step[1]
            new_cost = self._cost(*moved, seen)
            if new_cost < cost:
                (poses, points), cost, damping = moved, new_cost, damping / 10
            else:
                damping *= 100
        found = rigid.orthonormal(rigid.inverse(poses))
        if not self._plausible(found[-1], points):
            return places
        for i, (image, pose) in enumerate(zip(self._images, found)):
            self._images[i] = KeyImage(pose, image.ids, image.rays, image.mapped)
        return self._in_front(Places(places.ids, points, self._trust(points, places, seen)))

    def state(self) -> dict[str, np.ndarray]:
        return {
            "poses": np.stack([image.T_map_camera for image in self._images]),
            "mapped_images": np.array([image.mapped for image in self._images]),
            "counts": np.array([len(image.ids) for image in self._images]),
            "seen_ids": np.concatenate([image.ids for image in self._images]),
            "seen_rays": np.concatenate([image.rays for image in self._images]),
        }

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray], focal: float) -> Window:
        ends = np.cumsum(state["counts"])[:-1]
        columns = (
            state["poses"].copy(),
            [part.copy() for part in np.split(state["seen_ids"], ends)],
            [part.copy() for part in np.split(state["seen_rays"], ends)],
            state["mapped_images"].tolist(),
        )
        return cls([KeyImage(*row) for row in zip(*columns)], focal)

    def _with_new(self, places: Places) -> Places:
        """Places of what the window sees; corners without one get it when they are seen twice."""
        ids, count = np.unique(
            np.concatenate([image.ids for image in self._images]), return_counts=True
        )
        # Where a corner without parallax lies is asked anew: from there it would not find its way.
        begun = np.isin(places.ids, ids[count > 1], assume_unique=True) & (places.trust < _KNOWN)
        kept = places.take(np.isin(places.ids, ids, assume_unique=True) & ~begun)
        fresh = np.setdiff1d(ids[count > 1], kept.ids, assume_unique=True)
        ids = np.concatenate([kept.ids, fresh])
        points = np.concatenate([kept.points, self._begun(fresh, self._reach(kept))])
        order = np.argsort(ids, kind="stable")
        trust = np.concatenate([kept.trust, np.zeros(len(fresh))])
        return Places(ids[order], points[order], trust[order])

    def _reach(self, places: Places) -> float:
        """Typical depth of `places` in the newest image."""
        local = (places.points - self.newest.T_map_camera[:3, 3]) @ self.newest.T_map_camera[:3, 2]
        return float(np.median(local[local > 0])) if (local > 0).any() else 1.0

    def _begun(self, ids: np.ndarray, reach: float) -> np.ndarray:
        """Places (N, 3) of new corners: nearest to their bearings; without parallax, or behind a
        camera, along the last bearing at depth `reach`."""
        normal, right = np.zeros((len(ids), 3, 3)), np.zeros((len(ids), 3))
        first, last, parallax = np.zeros((len(ids), 3)), np.zeros((len(ids), 3)), np.zeros(len(ids))
        ahead = np.zeros((len(ids), 3))
        for image in self._images:
            _, mine, rows = np.intersect1d(image.ids, ids, assume_unique=True, return_indices=True)
            direction = _directions(image.rays[mine], image.T_map_camera)
            across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
            centre = image.T_map_camera[:3, 3]
            normal[rows] += across
            right[rows] += across @ centre
            new = ~first[rows].any(axis=1)
            first[rows[new]] = direction[new]
            cosine = np.einsum("ni,ni->n", first[rows], direction)
            parallax[rows] = np.arccos(np.clip(cosine, -1.0, 1.0))
            along = reach / (direction @ image.T_map_camera[:3, 2])
            ahead[rows], last[rows] = centre + along[:, None] * direction, direction
        points = np.linalg.solve(normal + 1e-9 * np.eye(3), right[..., None])[..., 0]
        forward = np.einsum("ni,ni->n", points - self.newest.T_map_camera[:3, 3], last) > 0
        return np.where((forward & (parallax > _MIN_PARALLAX))[:, None], points, ahead)

    def _sightings(self, places: Places) -> _Sightings:
        images, rows, rays = [], [], []
        for number, image in enumerate(self._images):
            mine, theirs = places.of(image.ids)
            images.append(np.full(len(mine), number))
            rows.append(theirs)
            rays.append(image.rays[mine])
        return _Sightings(np.concatenate(images), np.concatenate(rows), np.concatenate(rays))

    def _errors(
        self, poses: np.ndarray, points: np.ndarray, seen: _Sightings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points in their camera's frame (M, 3) and errors of their bearings (M, 2)."""
        T = poses[seen.image]
        local = np.einsum("mij,mj->mi", T[:, :3, :3], points[seen.place]) + T[:, :3, 3]
        z = np.maximum(local[:, 2:], 1e-6)
        return local, seen.rays - local[:, :2] / z

    def _cost(self, poses: np.ndarray, points: np.ndarray, seen: _Sightings) -> float:
        size = np.square(self._errors(poses, points, seen)[1] * self._focal / _REACH).sum(axis=1)
        return float((size / (1.0 + size)).sum())

    def _step(
        self,
        poses: np.ndarray,
        points: np.ndarray,
        seen: _Sightings,
        damping: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps of poses (P, 6) and places (L, 3): places eliminated, then poses solved."""
        local, error = self._errors(poses, points, seen)
        weight = 1.0 / np.square(1.0 + np.square(error * self._focal / _REACH).sum(axis=1))
        of_pose, of_local = _derivatives(local)
        of_point = of_local @ poses[seen.image, :3, :3]
        count = (len(poses), len(points))
        weighted_pose, weighted_point = (x * weight[:, None, None] for x in (of_pose, of_point))
        H = _sums(np.einsum("mri,mrj->mij", weighted_pose, of_pose), seen.image, count[0])
        g = _sums(np.einsum("mri,mr->mi", weighted_pose, error), seen.image, count[0])
        V = _sums(np.einsum("mri,mrj->mij", weighted_point, of_point), seen.place, count[1])
        h = _sums(np.einsum("mri,mr->mi", weighted_point, error), seen.place, count[1])
        cross = np.zeros((*count, 6, 3))
        cross[seen.image, seen.place] = np.einsum("mri,mrj->mij", weighted_pose, of_point)
        V[:, np.arange(3), np.arange(3)] *= 1.0 + damping
        V += self._stiffness(local, seen, count[1])[:, None, None] * np.eye(3)
        H[:, np.arange(6), np.arange(6)] *= 1.0 + damping
        inverse = np.linalg.inv(V)
        return self._solved(H, g, cross, inverse, h)

    def _stiffness(self, local: np.ndarray, seen: _Sightings, count: int) -> np.ndarray:
        """(L,) what holds a place where bearings leave its distance open."""
        depth = np.ones(count)
        depth[seen.place] = np.maximum(local[:, 2], 1e-6)
        return np.square(1.0 / (self._focal * _DEPTH_SIGMA * depth))

    def _solved(
        self,
        H: np.ndarray,
        g: np.ndarray,
        cross: np.ndarray,
        inverse: np.ndarray,
        h: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Schur complement; fixed poses do not move."""
        free = np.flatnonzero(~self._fixed())
        carried = cross[free] @ inverse
        flat = carried.transpose(0, 2, 1, 3).reshape(6 * len(free), 3 * len(h))
        other = cross[free].transpose(0, 2, 1, 3).reshape(6 * len(free), 3 * len(h))
        system = -flat @ other.T
        for i, pose in enumerate(free):
            system[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] += H[pose]
        right = g[free].reshape(-1) - flat @ h.reshape(-1)
        steps = np.zeros((len(H), 6))
        if len(free):
            steps[free] = np.linalg.lstsq(system, right, rcond=None)[0].reshape(-1, 6)
        rest = h - np.einsum("plij,pi->lj", cross, steps)
        return steps, np.einsum("lij,lj->li", inverse, rest)

    def _fixed(self) -> np.ndarray:
        """(P,) bool."""
        fixed = np.array([image.mapped for image in self._images])
        fixed[:_FIXED] = True
        return fixed

    def _trust(self, points: np.ndarray, places: Places, seen: _Sightings) -> np.ndarray:
        """(L,) by the angle between the first and the last sighting; what was known stays so."""
        first = np.full(len(points), len(self._images))
        last = np.zeros(len(points), int)
        np.minimum.at(first, seen.place, seen.image)
        np.maximum.at(last, seen.place, seen.image)
        first = np.minimum(first, last)
        centres = np.stack([image.T_map_camera[:3, 3] for image in self._images])
        a, b = (points - centres[first], points - centres[last])
        length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.einsum("ni,ni->n", a, b) / np.maximum(length, 1e-12)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        least = np.where(places.trust < _KNOWN, _LEAST_TRUST, _KNOWN)
        return np.maximum(np.square(np.minimum(angle / _FULL_PARALLAX, 1.0)), least)

    def _plausible(self, pose: np.ndarray, points: np.ndarray) -> bool:
        """Whether the newest pose stays near where it was: a thin geometry may collapse."""
        before = self.newest.T_map_camera
        depth = np.median((points - pose[:3, 3]) @ pose[:3, 2])
        shift = float(np.linalg.norm(pose[:3, 3] - before[:3, 3]))
        cosine = (np.trace(before[:3, :3].T @ pose[:3, :3]) - 1) / 2
        turned = float(np.arccos(np.clip(cosine, -1, 1)))
        return depth > 0 and shift < _MAX_SHIFT * depth and turned < _MAX_TURN

    def _in_front(self, places: Places) -> Places:
        """Without what went behind the newest camera that is to see it."""
        local = places.points - self.newest.T_map_camera[:3, 3]
        behind = local @ self.newest.T_map_camera[:3, 2] <= 0
        good = ~(behind & np.isin(places.ids, self.newest.ids))
        return places.take(good)


def _sums(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Sum of `values` (M, ...) by group (M,), (count, ...)."""
    flat = values.reshape(len(values), -1)
    columns = [np.bincount(groups, column, count) for column in flat.T]
    return np.stack(columns, axis=1).reshape(count, *values.shape[1:])


def _directions(rays: np.ndarray, T_map_camera: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) in the map of bearings (N, 2) from a camera (4, 4)."""
    local = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return local @ T_map_camera[:3, :3].T


def _derivatives(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of bearings by shift and turn of the points (M, 2, 6), and by the points (M, 2, 3)."""
    inverse = 1.0 / np.maximum(local[:, 2], 1e-6)
    x, y, zero = local[:, 0] * inverse, local[:, 1] * inverse, np.zeros(len(local))
    by_point = np.stack(
        [
            np.stack([inverse, zero, -x * inverse], axis=1),
            np.stack([zero, inverse, -y * inverse], axis=1),
        ],
        axis=1,
    )
    by_turn = np.stack(
        [np.stack([-x * y, 1 + x * x, -y], axis=1), np.stack([-1 - y * y, x * y, x], axis=1)],
        axis=1,
    )
    return np.concatenate([by_point, by_turn], axis=2), by_point


def _moved(T_camera_map: np.ndarray, steps: np.ndarray) -> np.ndarray:
    turns = Rotation.from_rotvec(steps[:, 3:]).as_matrix()
    return rigid.from_parts(turns, steps[:, :3]) @ T_camera_map
