"""Two processes that share the chunks of a world learn exactly what one process learns from all."""

import os
import socket
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import torch.multiprocessing as mp  # noqa: E402
from toy_run import CLIPS, TOY  # noqa: E402

from scal3r_ros.networks.scal3r.network import Scal3R  # noqa: E402
from scal3r_ros.train.learner import start_at_the_mean  # noqa: E402
from scal3r_ros.train.objective import step_loss  # noqa: E402
from scal3r_ros.train.parallel import Crew, join_crew, leave_crew  # noqa: E402
from scal3r_ros.train.probe import Probes  # noqa: E402
from scal3r_ros.train.replay import chunks_of  # noqa: E402
from scal3r_ros.train.schedule import Stage  # noqa: E402
from scal3r_ros.train.worlds.clips import WorldSampler  # noqa: E402
from scal3r_ros.train.worlds.textures import make_texture_pool  # noqa: E402

STAGE = Stage("C", 1.0, 2, CLIPS, chunks=2, overlap=1, memory=True, spare_frames=0)


def _gradients(crew: Crew) -> dict[str, torch.Tensor]:
    """Gradients of one step on two chunks of two worlds."""
    torch.manual_seed(0)
    network = Scal3R(TOY)
    start_at_the_mean(network)
    with torch.no_grad():
        network.agg_regator.memory_unit(1).proj.bias.fill_(0.3)
    probes = Probes(network, 0)
    sampler = WorldSampler(make_texture_pool(1, 18))
    clips = sampler.batch(4, 2, replace(CLIPS, frames=STAGE.drawn_frames), "room")
    frames = torch.arange(STAGE.drawn_frames).expand(2, -1)
    loss = step_loss(network, chunks_of(clips, frames, STAGE), STAGE, (0,), probes, crew)
    loss.total.backward()
    everything = [*network.parameters(), *probes.parameters()]
    crew.average(everything)
    return {k: p.grad.clone() for k, p in network.named_parameters() if p.grad is not None}


def _worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    crew = join_crew(torch.device("cpu"))
    torch.save(_gradients(crew), f"{folder}/{rank}.pt")
    leave_crew(crew)


def test_shared_chunks_give_the_gradients_of_one_process(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (port, str(tmp_path)), nprocs=2)
    alone = _gradients(Crew())
    for rank in range(2):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert shared.keys() == alone.keys()
        for name, value in alone.items():
            scale = max(float(value.abs().max()), 1e-6)
            assert float((shared[name] - value).abs().max()) < 1e-3 * scale + 1e-6, name
    memory = [v for k, v in alone.items() if k.endswith(("ttt.w0", "ttt.qkv.weight"))]
    assert memory and all(float(v.abs().max()) > 0 for v in memory)
