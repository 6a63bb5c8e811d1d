"""The count of LoGeR's operations against an independent one, and the benchmark at its smallest."""

import argparse
import json
from dataclasses import replace

import pytest
from small_loger import SMALL

from scal3r_ros.bench import loger
from scal3r_ros.networks.fast_weights import gram_steps
from scal3r_ros.networks.loger.architecture import PRESETS


def test_quick_run_writes_what_it_prints(tmp_path, capsys):
    out = tmp_path / "loger.json"
    (row,) = loger.run(argparse.Namespace(out=out, quick=True))
    (written,) = json.loads(out.read_text())
    assert written["tflop"] == row.tflop > 0 and row.cpu_seconds > 0
    assert "loger-tiny" in capsys.readouterr().out


def test_state_is_what_the_architecture_tells(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    case = loger.Case("small", 4, 1, (2, 3))
    row = loger.counted(case)
    weights = 3 * 3 * 2 * 16 * 32
    cache = 2 * 2 * 4 * (6 + SMALL.special_tokens) * SMALL.embed_dim
    assert row.state_megabytes == pytest.approx((4 * (weights + cache) + 8) / 1e6)


def test_memory_layers_cost_what_their_equations_say(monkeypatch):
    """Without any of them the difference is what the equations add up to, per token: projection and
    gate, reading 3 products, gradient 6, rates twice the tokens' width, Newton-Schulz once."""
    none = replace(SMALL, ttt_insert_after=())
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setitem(PRESETS, "none", none)
    with_memory, without = (
        loger.counted(loger.Case(name, 4, 1, (2, 3))).tflop * 1e12 for name in ("small", "none")
    )
    a = SMALL
    tokens = 4 * (6 + a.special_tokens)
    heads, width = a.embed_dim // a.ttt_head_dim, a.ttt_head_dim
    hidden = width * a.ttt_inter_multi
    product = 2 * heads * width * hidden
    per_token = 2 * (2 * a.embed_dim * 3 * a.embed_dim)  # queries, keys and values for both uses
    per_token += 2 * a.embed_dim * (3 * heads + 1 + a.embed_dim) + (3 + 6) * product
    rows, columns = min(width, hidden), max(width, hidden)
    newton_schulz = sum(  # over each Gram matrix: in and out; a factor a step; S and the product on
        4 * rows**2 * columns + 2 * rows**3 * steps + 6 * rows**3 * (steps - 1)
        for steps in gram_steps(a.muon_steps)
    )
    once = 3 * heads * newton_schulz
    expected = len(a.ttt_insert_after) * (tokens * per_token + once)
    assert with_memory - without == pytest.approx(expected, rel=1e-6)
