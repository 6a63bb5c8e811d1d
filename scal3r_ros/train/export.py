"""From a run to a checkpoint that the package loads: averaged weights, half precision,
checksums."""

from __future__ import annotations

from pathlib import Path

import torch

from scal3r_ros.files import write_text
from scal3r_ros.networks.checkpoint import file_fingerprint
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.checkpoint import save_checkpoint
from scal3r_ros.train.run_state import read_run

SHARD_BYTES = 15 * 2**20
CHECKSUMS = "SHA256SUMS"


def export_run(run: Path, folder: Path, name: str = "scal3r-tiny") -> str:
    """Write the averaged weights of `run` as float16 safetensors; returns the fingerprint.

    Files of an earlier export with the same name are replaced.
    """
    content = read_run(run)
    architecture = Architecture.from_json(content["architecture"])
    for old in folder.glob(f"{name}*.safetensors*"):
        old.unlink()
    files = save_checkpoint(
        content["average"], architecture, folder, name, torch.float16, SHARD_BYTES
    )
    sums = "".join(f"{file_fingerprint([path])}  {path.name}\n" for path in files)
    write_text(folder / CHECKSUMS, sums)
    return file_fingerprint(files)
