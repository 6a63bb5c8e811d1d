"""`Tracker` around a recurrent network: one image against a state of tokens and a memory of poses.

A block begins with the first image, and with every `new_block`. Poses are in the frame of the
block's first camera and in the network's scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from scal3r_ros.networks.mem3r.network import Encoded, Mem3R
from scal3r_ros.networks.mem3r.outputs import pose_matrix
from scal3r_ros.networks.mem3r.recurrence import Step, begin, step
from scal3r_ros.networks.mem3r.state_arrays import state_arrays, state_from_arrays
from scal3r_ros.networks.mem3r.state_rules import RULES
from scal3r_ros.reconstruct.mem3r.images import network_input, prepare
from scal3r_ros.records import Frame
from scal3r_ros.tracking.interface import TrackerFrame


class RecurrentTracker:
    """CUT3R or Mem3R, by the network's architecture, under one of the state rules."""

    def __init__(self, network: Mem3R, rule: str = "ttt3r", device: str = "cpu") -> None:
        if rule not in RULES:
            raise ValueError(f"unknown state rule {rule!r}; known are {', '.join(RULES)}")
        self._network, self._rule, self._device = network, RULES[rule], device
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is the first."""
        self._block, self._frames = 0, 0
        self._state = begin(self._network)

    @torch.no_grad()
    def step(self, frame: Frame, *, update: bool = True) -> TrackerFrame:
        """The next image."""
        return self._told(self._encoded(frame), update, ends_block=False)

    @torch.no_grad()
    def turn_over(self, frame: Frame) -> tuple[TrackerFrame, TrackerFrame]:
        """The last image of a block, and the same one as the first of the next."""
        encoded = self._encoded(frame)
        last = self._told(encoded, update=True, ends_block=True)
        self._block, self._frames = self._block + 1, 0
        return last, self._told(encoded, update=True, ends_block=False)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is carried to the next image, as copies."""
        numbers = np.array([self._block, self._frames])
        own = {"numbers": numbers, "format": np.array(self._format)}
        return state_arrays(self._network, self._state) | own

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken; raises `ValueError` if it is another tracker's."""
        found = str(state.get("format", "nothing"))
        if found != self._format:
            raise ValueError(f"the state of {found!r} does not fit a tracker of {self._format!r}")
        arrays = {k: v for k, v in state.items() if k not in ("numbers", "format")}
        self._state = state_from_arrays(self._network, arrays)
        self._block, self._frames = state["numbers"].tolist()

    @property
    def _format(self) -> str:
        a = self._network.architecture
        return f"{a.pose_memory} {self._rule.name} {a.state_size}x{a.dec_embed_dim}"

    def _encoded(self, frame: Frame) -> Encoded:
        a = self._network.architecture
        prepared = prepare(frame.rgb, a.image_size, a.patch_size)
        images = torch.from_numpy(network_input(prepared.rgb))[None].to(self._device)
        return self._network.encode(images)

    def _told(self, encoded: Encoded, update: bool, ends_block: bool) -> TrackerFrame:
        before = self._state
        after, seen = step(self._network, before, encoded, self._rule, update, ends_block)
        told = self._read_out(seen)
        if update:
            self._state, self._frames = after, self._frames + 1
        return told

    def _read_out(self, seen: Step) -> TrackerFrame:
        heads = self._network.downstream_head
        points, confidence = heads.camera_map(seen.hooks)
        pose = pose_matrix(heads.camera_pose(seen.hooks).double())[0].cpu().numpy()
        left, _, right = np.linalg.svd(pose[:3, :3])
        pose[:3, :3] = left @ right
        return TrackerFrame(
            pose,
            self._block,
            self._frames,
            seen.update_strength,
            points[0].cpu().numpy(),
            confidence[0].cpu().numpy(),
        )
