"""Frame by frame: what is carried from one image to the next, and the step that carries it.

    state, frame = step(network, state, network.encode(image), RULES["ttt3r"])

A step is causal and pure: it returns a new state. The first frame of a block has no past: it
writes fully, and CUT3R takes a learned pose token for it instead of one from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.networks.mem3r.attention import AttentionObserver
from scal3r_ros.networks.mem3r.heads import Hooks
from scal3r_ros.networks.mem3r.network import Encoded, Mem3R
from scal3r_ros.networks.mem3r.state_rules import Seen, StateRule


@dataclass(frozen=True)
class State:
    """Everything between two frames."""

    tokens: Tensor
    """(B, S, d)."""
    memory: tuple[Tensor, ...]
    """Of poses: the slots, or the three fast weights."""
    first: bool = True
    """Whether the next frame is the first of a block."""
    before: Seen | None = None
    """The last frame that was written, for rules that compare."""
    last: Encoded | None = None
    """The same for networks that match a frame with the one before."""


@dataclass(frozen=True)
class Step:
    """What a frame said, beside the new state."""

    hooks: Hooks
    """For the heads."""
    prior: Tensor
    """Pose token that the memory expected, (B, d)."""
    candidate: Tensor
    """State that the frame proposed, (B, S, d)."""
    mask: Tensor
    """Share of the proposal that each token took by the rule, (B, S)."""
    gate: Tensor | None
    """The same per channel by Mem3R's gate, (B, S, d); None without one."""

    @property
    def update_strength(self) -> float:
        """Mean share of the state that was overwritten."""
        share = self.mask if self.gate is None else self.mask[..., None] * self.gate
        return float(share.mean())


def begin(network: Mem3R, batch: int = 1) -> State:
    """The state before the first frame of a block."""
    return State(network.initial_state(batch), network.memory.initial(batch))


def step(
    network: Mem3R,
    state: State,
    frame: Encoded,
    rule: StateRule,
    update: bool = True,
    reset: bool = False,
    observe_image: AttentionObserver | None = None,
) -> tuple[State, Step]:
    """One frame. Without `update` nothing is remembered of it; `reset` ends its block behind it.
    `observe_image` is that of `Mem3R.decode`."""
    feature = frame.mean
    if state.first and network.uses_slots:
        prior = network.pose_token[:, 0].expand(len(feature), -1)
    else:
        prior = network.memory.read(feature, state.memory)
    observer = None if state.first else rule.observer()
    decoded = network.decode(state.tokens, frame, prior, observer, state.last, observe_image)
    now = Seen(frame.tokens, decoded.candidate)
    mask = _mask(rule, observer, state, now) * float(update)
    gate = None if network.uses_slots else network.state_gate(state.tokens, feature)
    done = Step(decoded.hooks, prior, decoded.candidate, mask, gate)
    if reset:
        return begin(network, len(feature)), done
    if not update:
        return replace(state, first=False), done
    share = mask[..., None] if gate is None else mask[..., None] * gate
    tokens = share * decoded.candidate + (1 - share) * state.tokens
    memory = network.memory.write(feature, state.memory, decoded.hooks.pose)
    last = frame if network.architecture.last_frame else None
    return State(tokens, memory, False, now if rule.remembers else None, last), done


def _mask(rule: StateRule, observer, state: State, now: Seen) -> Tensor:
    everything = torch.ones(now.candidate.shape[:2], device=now.candidate.device)
    if state.first:
        return everything
    return rule.mask(observer, state.before, now) * everything
