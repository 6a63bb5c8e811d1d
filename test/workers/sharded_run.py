"""What every process of torchrun runs: rank 0 reconstructs and writes, the others serve it."""

import sys

import numpy as np
from crew import make_chunk, of_mixed_sizes

from scal3r_ros.config import load
from scal3r_ros.reconstruct.factory import open_reconstructor
from scal3r_ros.workers.sharded import serve
from scal3r_ros.workers.torchrun import is_helper


def main(options: str, out: str) -> int:
    config = load(options)
    if is_helper():
        return serve(config)
    reconstructor = open_reconstructor(config)
    chunks = [of_mixed_sizes(make_chunk(i, frames=3 + i % 2)) for i in range(5)]
    depths = []
    while chunks:
        size = reconstructor.round_size or len(chunks)
        taken, chunks = chunks[:size], chunks[size:]
        depths += [p.depth for p in reconstructor.reconstruct_round(taken)]
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
    if hasattr(reconstructor, "close"):
        reconstructor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
