"""The analytic count against an independent one, and the benchmark itself at its smallest."""

import argparse
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scal3r_ros.bench import model
from scal3r_ros.bench.naive_schedule import run_naively
from scal3r_ros.bench.network_cost import chunk_cost
from scal3r_ros.model.architecture import Architecture

SIZES = Architecture(
    image_size_of_pos_embed=42,
    embed_dim=32,
    vit_depth=2,
    vit_num_heads=2,
    depth=3,
    num_heads=2,
    intermediate_layers=(0, 1, 2, 2),
    ttt_layers=(1, 2),
    camera_trunk_depth=2,
    camera_num_heads=2,
    dpt_features=16,
    dpt_out_channels=(8, 12, 16, 20),
)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [SIZES, replace(SIZES, dense_head="linear"), replace(SIZES, ttt_num_heads=2)],
    ids=["dpt", "linear", "two memory heads"],
)
def test_counted_operations_agree_with_the_operations_executed(sizes, points):
    network = model.random_network(sizes, "float32", torch.device("cpu"))
    images = torch.randint(0, 256, (1, 3, 3, 42, 70), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(images, points=points)
    expected = chunk_cost(sizes, 3, 3, (3, 5), points).total
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


def test_naive_schedule_computes_the_same():
    network = model.random_network(SIZES, "float32", torch.device("cpu"))
    chunks = [torch.randint(0, 256, (1, n, 3, 42, 70), dtype=torch.uint8) for n in (3, 2)]
    for found, expected in zip(run_naively(network, chunks), network(chunks, points=True)):
        torch.testing.assert_close(found.depth, expected.depth)
        torch.testing.assert_close(found.points, expected.points)


@pytest.mark.slow
def test_benchmark_prints_and_writes_every_case(tmp_path, capfd):
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    out = tmp_path / "model.json"
    results = model.run(parser.parse_args(["--quick", "--device", "cpu", "--out", str(out)]))
    stored = json.loads(out.read_text())["results"]
    assert [r["case"]["schedule"] for r in stored] == ["stream", "naive", "stream", "stream"]
    assert all(r.frames_per_second > 0 and 0 < r.share_of_matmul < 1 for r in results)
    table = capfd.readouterr().out
    assert all(f"{r.case.schedule} {r.case.precision}" in table for r in results)
