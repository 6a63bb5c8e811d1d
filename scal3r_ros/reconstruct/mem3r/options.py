"""What of the configuration has a meaning for the CUT3R family. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.config import MemoryConfig, ModelConfig

WEIGHTS = (
    "name a .safetensors or .pth file of the CUT3R family in model.checkpoint; its public weights "
    "may not be used commercially and are not fetched for you (Mem3R has none)"
)


def check_options(model: ModelConfig, memory: MemoryConfig) -> None:
    """Refuse what has no meaning for this network."""
    if not model.checkpoint:
        raise ValueError(f"model.reconstructor mem3r needs weights; {WEIGHTS}")
    if not Path(model.checkpoint).expanduser().is_file():
        raise ValueError(f"model.checkpoint {model.checkpoint} does not exist; {WEIGHTS}")
    if memory.mode not in ("stream", "off"):
        raise ValueError(
            f"memory.mode {memory.mode} needs a memory that is a sum over chunks; that of mem3r "
            f"goes from one frame to the next, set it to stream or to off"
        )
