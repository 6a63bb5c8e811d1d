"""From parameters to a mapper: what can be checked at once, and what is loaded by the worker."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.reconstruct.choice import choose, resolved
from scal3r_ros.reconstruct.factory import LOGER, check_processes
from scal3r_ros.reconstruct.interruptible import InterruptibleReconstructor
from scal3r_ros.reconstruct.loger.options import check_options
from scal3r_ros.reconstruct.mem3r.options import check_options as check_mem3r_options

_NVIDIA = Path("/dev/nvidiactl")
"""There where a driver of CUDA devices runs; asking torch would take seconds."""
TORCH_MISSING = (
    "model.reconstructor {} needs PyTorch, which is not installed for this Python: "
    "pip install torch (see https://pytorch.org/get-started), or set model.reconstructor to sfm"
)


def check_prerequisites(config: NodeConfig) -> None:
    """Raise `ValueError` for what can never work; quick, so that configuring never blocks."""
    config = resolved(config)
    if config.worker.count > 0:
        check_processes(config.model.reconstructor, f"worker.count {config.worker.count}")
        return
    if config.model.reconstructor != "sfm":
        if importlib.util.find_spec("torch") is None:
            raise ValueError(TORCH_MISSING.format(config.model.reconstructor))
        if config.model.reconstructor in LOGER:
            check_options(config.model, config.memory)
        elif config.model.reconstructor == "mem3r":
            check_mem3r_options(config.model, config.memory)
        else:
            _check_checkpoint(config)
        if config.model.device.startswith("cuda"):
            _check_cuda(config.model.device)
    elif importlib.util.find_spec("pycolmap") is None:
        raise ValueError("model.reconstructor sfm needs pycolmap: pip install pycolmap")


def make_mapper(node: Any, config: NodeConfig) -> tuple[Any, InterruptibleReconstructor]:
    """Load the network and build the mapper; takes seconds, runs on the worker's thread."""
    from scal3r_ros.pipeline.localisation import LocalisingMapper
    from scal3r_ros.reconstruct.factory import known_limits

    node.get_logger().info(f"reconstructor {choose(config).reason}")
    limits = known_limits(config)
    if limits:
        node.get_logger().warning(limits)
    reconstructor = InterruptibleReconstructor(open_reconstructor(node, config), limits)
    return LocalisingMapper(config, reconstructor), reconstructor


def open_reconstructor(node: Any, config: NodeConfig) -> Any:
    """The reconstructor that `worker` asks for: remote nodes, another process, or this one."""
    if config.worker.count > 0:
        from scal3r_ros.nodes.workers.remote_reconstructor import open_remote

        return open_remote(node, config)
    if in_own_process(config):
        from scal3r_ros.reconstruct.process import ProcessReconstructor

        return ProcessReconstructor(config)
    from scal3r_ros.reconstruct.factory import open_reconstructor as open_local

    return open_local(config)


def in_own_process(config: NodeConfig) -> bool:
    """Whether the network runs where it cannot hold the interpreter that the callbacks need. On a
    GPU most of the time passes outside of it."""
    if config.worker.mode != "auto":
        return config.worker.mode == "process"
    model = resolved(config).model
    on_cpu = model.device == "cpu" or (model.device == "auto" and not _NVIDIA.exists())
    return model.reconstructor == "sfm" or on_cpu


def _check_checkpoint(config: NodeConfig) -> None:
    name = config.model.checkpoint
    if name and not Path(name).expanduser().exists() and not config.model.allow_download:
        raise ValueError(
            f"model.checkpoint {name} does not exist; correct the path, or set "
            f"model.allow_download, or leave it empty for the small model of the package"
        )


def _check_cuda(device: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            f"model.device is {device} but this PyTorch finds no CUDA device; set model.device to "
            f"auto or cpu, or install a CUDA build and driver"
        )
