"""Two processes that share the chunks of a world learn exactly what one process learns from all."""

import socket

import pytest

torch = pytest.importorskip("torch")

import torch.multiprocessing as mp  # noqa: E402
from shared_gradients import gradients, worker  # noqa: E402

from scal3r_ros.train.parallel import Crew  # noqa: E402


def test_shared_chunks_give_the_gradients_of_one_process(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    alone = gradients(Crew())
    for rank in range(2):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert shared.keys() == alone.keys()
        for name, value in alone.items():
            scale = max(float(value.abs().max()), 1e-6)
            assert float((shared[name] - value).abs().max()) < 1e-3 * scale + 1e-6, name
    memory = [v for k, v in alone.items() if k.endswith(("ttt.w0", "ttt.qkv.weight"))]
    assert memory and all(float(v.abs().max()) > 0 for v in memory)
