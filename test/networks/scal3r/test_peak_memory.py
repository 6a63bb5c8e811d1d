"""Device memory of a chunk at full size, counted without a device."""

import torch
from tensor_peak import FusedAttention, MetaNetwork, TensorPeak

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.layers import Rotary
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.memory import ContextMemory
from scal3r_ros.networks.scal3r.memory_unit import MemoryUnit
from scal3r_ros.networks.scal3r.schedule import run_round

GIB = 1 << 30


def test_the_counter_sees_what_lives_at_one_time():
    with TensorPeak() as peak:
        kept = torch.zeros(1000, device="meta") + 1  # both live until the sum is made
        assert (peak.present, peak.highest) == (4000, 8000)
        for _ in range(3):
            kept.exp()
    assert (peak.present, peak.highest) == (4000, 8000)


def test_full_size_chunk_stays_below_eight_gibibytes():
    """60 frames of 518 x 392 in the middle of a stream, half of them known already."""
    network, memory = MetaNetwork(Architecture()), ContextMemory()
    with TensorPeak(network.parameters()) as peak, FusedAttention(), torch.no_grad():
        shapes = network.memory_shapes()
        memory.merge({k: FastWeights(*map(torch.empty_like, w)) for k, w in shapes.items()}, 1)
        known = torch.empty(60, 28 * 37, 1024, device="meta")
        new = network.encode(torch.empty(30, 3, 392, 518, dtype=torch.uint8))
        states = [network.begin(torch.cat((known[30:], new))[None], (28, 37))]
        round_ = memory.round()
        run_round(network, states, round_)
        network.decode(states.pop())
        round_.commit()
    assert 3 * GIB < peak.highest < 6 * GIB, "little is left for what libraries need themselves"


def test_memory_units_need_as_much_for_a_long_chunk_as_for_a_short_one():
    """Beyond tokens in and out, gradient and apply are bounded by the slice, not by the chunk."""
    with torch.device("meta"):
        unit = MemoryUnit(Architecture(embed_dim=64)).requires_grad_(False)
        table = Rotary(torch.empty(10, 64), torch.empty(10, 64))

    def needs(frames: int) -> tuple[int, int]:
        tokens, weights = torch.empty(1, frames, 15, 64, device="meta"), unit.initial()
        needed = []
        for step in (
            lambda: unit.gradient(tokens, table, 100),
            lambda: unit.residual(tokens, weights, table, 100),
        ):
            with TensorPeak([tokens, *weights, *unit.parameters()]) as peak:
                step()
            needed.append(peak.highest)
        return needed[0], needed[1] - tokens.nbytes

    short, long = needs(40), needs(160)
    assert short == long
    assert min(short) > 100 * 64 * 4
