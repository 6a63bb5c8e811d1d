"""What of the configuration has a meaning for LoGeR. Loads no torch, so that a node can ask at
once."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.config import MemoryConfig, ModelConfig
from scal3r_ros.io.download import LOGER_WEIGHTS


def check_options(model: ModelConfig, memory: MemoryConfig) -> None:
    """Refuse what has no meaning for this network."""
    if not model.checkpoint:
        raise ValueError(
            f"model.reconstructor {model.reconstructor} needs weights; {LOGER_WEIGHTS}"
        )
    if not Path(model.checkpoint).expanduser().exists():
        raise ValueError(f"model.checkpoint {model.checkpoint} does not exist; {LOGER_WEIGHTS}")
    if memory.mode not in ("stream", "off"):
        raise ValueError(
            f"memory.mode {memory.mode} needs a memory that is a sum over chunks; that of "
            f"{model.reconstructor} goes from one chunk to the next, set it to stream, which is "
            f"the released offline algorithm too, or to off"
        )
