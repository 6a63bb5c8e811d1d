"""What every process of torchrun runs: rank 0 reconstructs and writes, the others serve it."""

import sys
from dataclasses import replace
from unittest import mock

import numpy as np
from crew import make_chunk, of_mixed_sizes

from scal3r_ros.config import load
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.scal3r import reconstructor as reconstructor_module
from scal3r_ros.workers.sharded import serve
from scal3r_ros.workers.torchrun import is_helper, opened_reconstructor


def failing_heads(chunk: int):
    """As of a network whose cameras of one chunk are not finite."""
    plain = reconstructor_module.to_prediction

    def failing(job, raw, *memory):
        spoiled = replace(raw, cameras=raw.cameras * np.nan) if job.index == chunk else raw
        return plain(job, spoiled, *memory)

    return mock.patch.object(reconstructor_module, "to_prediction", failing)


def main(options: str, out: str) -> int:
    config = load(options)
    with failing_heads(3):
        return serve(config) if is_helper() else _run(config, out)


def _run(config, out: str) -> int:
    with opened_reconstructor(config) as reconstructor:
        return _reconstruct(reconstructor, out)


def _reconstruct(reconstructor, out: str) -> int:
    chunks = [of_mixed_sizes(make_chunk(i, frames=3 + i % 2)) for i in range(5)]
    depths = []
    while chunks:
        size = reconstructor.round_size or len(chunks)
        taken, chunks = chunks[:size], chunks[size:]
        results = reconstructor.reconstruct_round(taken)
        depths += [p.depth for p in results if not isinstance(p, ReconstructionFailed)]
    kept = reconstructor.state()
    loop = reconstructor.reconstruct(make_chunk(9), contribute=False)
    reconstructor.reset()
    first = reconstructor.reconstruct(make_chunk(0))
    reconstructor.restore(kept)
    again = reconstructor.reconstruct(make_chunk(9), contribute=False)
    after = reconstructor.reconstruct_round(
        [make_chunk(5), make_chunk(6)][: reconstructor.round_size]
    )
    arrays = {f"depth_{i}": depth for i, depth in enumerate(depths)}
    np.savez(out, loop=loop.depth, first=first.depth, again=again.depth, after=after[-1].depth,
             **arrays, **{f"memory_{k}": v for k, v in kept.arrays.items()})  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
