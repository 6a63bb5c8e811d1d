"""The analytic count against an independent one, and the benchmark itself at its smallest."""

import argparse
import json
import subprocess
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scal3r_ros.bench import model
from scal3r_ros.bench.model_cases import ModelCase, ModelResult, verdicts
from scal3r_ros.bench.naive_schedule import run_naively
from scal3r_ros.bench.network_cost import chunk_cost
from scal3r_ros.networks.scal3r.architecture import Architecture

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


def test_counted_operations_of_the_convolutional_encoder_are_those_executed():
    sizes = replace(
        SIZES,
        encoder="xfeat",
        patch_size=8,
        dense_head="guided",
        points_head=False,
        image_size_of_pos_embed=32,
    )
    network = model.random_network(sizes, "float32", torch.device("cpu"))
    images = torch.randint(0, 256, (1, 3, 3, 32, 64), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(images)
    expected = chunk_cost(sizes, 3, 3, (4, 8)).total
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
    assert all(sum(r.tflop_by_part.values()) == pytest.approx(r.tflop_per_chunk) for r in results)
    table = capfd.readouterr().out
    assert all(f"{r.case.schedule} {r.case.precision}" in table for r in results)
    assert "not measured on this machine" in table


def measured(schedule, precision, fps, peak_gib, share):
    case = ModelCase("scal3r", schedule, precision, 60, 392, 518, 2, "cuda:0")
    return ModelResult(case, 60 / fps, 1.0, fps, 524.0, {}, 700.0, 400.0, share, 4830.0,
                  1024 * peak_gib, 6000.0, 0.0)  # fmt: skip


def test_verdicts_tell_what_holds_on_a_large_gpu():
    naive = measured("naive", "float32", 4.0, 20.0, 0.4)
    good = verdicts([measured("stream", "bfloat16", 41.0, 5.0, 0.55), naive])
    assert [line.rpartition(": ")[2] for line in good] == ["holds"] * 3
    bad = verdicts([naive, measured("stream", "bfloat16", 39.0, 9.0, 0.45)])
    assert [line.rpartition(": ")[2] for line in bad] == ["DOES NOT HOLD"] * 3
    assert "9.8 times" in bad[1] and "400" in bad[2]
    (only,) = verdicts([naive])
    assert "not measured" in only


def test_a_case_that_does_not_fit_is_run_with_fewer_frames(monkeypatch, capsys):
    tried = []

    def run(command, **options):
        case = ModelCase(**json.loads(command[-1]))
        tried.append(case.frames)
        if case.frames > 15:
            return subprocess.CompletedProcess(command, 3, "")
        result = replace(measured("stream", "bfloat16", 9.0, 1.0, 0.1), case=case)
        return subprocess.CompletedProcess(command, 0, json.dumps(asdict(result)))

    monkeypatch.setattr(model.subprocess, "run", run)
    found = model.in_own_process(
        ModelCase("scal3r", "stream", "bfloat16", 60, 392, 518, 2, "cuda:0")
    )
    assert tried == [60, 30, 15] and found.case.frames == 15
    assert capsys.readouterr().out.count("does not fit") == 2
