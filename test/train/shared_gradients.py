"""One step's gradients in one process or two; processes import this module by its name."""

import os
from dataclasses import replace

import torch
from toy_run import CLIPS, TOY

from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.train.learner import start_at_the_mean
from scal3r_ros.train.objective import step_loss
from scal3r_ros.train.parallel import Crew, join_crew, leave_crew
from scal3r_ros.train.probe import Probes
from scal3r_ros.train.replay import chunks_of
from scal3r_ros.train.schedule import Stage
from scal3r_ros.train.worlds.clips import WorldSampler
from scal3r_ros.train.worlds.textures import make_texture_pool

STAGE = Stage("C", 1.0, 2, CLIPS, chunks=2, overlap=1, memory=True, spare_frames=0)


def gradients(crew: Crew) -> dict[str, torch.Tensor]:
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


def worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    crew = join_crew(torch.device("cpu"))
    torch.save(gradients(crew), f"{folder}/{rank}.pt")
    leave_crew(crew)
