"""What the options of the network make of it when it is opened."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")
import torch

from scal3r_ros.config import MemoryConfig, ModelConfig
from scal3r_ros.networks.scal3r.architecture import Numerics
from scal3r_ros.reconstruct.scal3r import setup

CPU = torch.device("cpu")


def test_weights_of_another_checksum_are_refused(folder):
    with pytest.raises(ValueError, match="sha256"):
        setup.open_scal3r(ModelConfig(checkpoint=str(folder), sha256="0" * 64), MemoryConfig())


def test_number_formats_are_those_of_the_options():
    assert setup.resolve_numerics(ModelConfig(), CPU) == Numerics(
        blocks="float32", newton_schulz="float32", token_slice=16384, head_batch=8
    )
    model = ModelConfig(
        precision="bfloat16", newton_schulz="bfloat16", token_slice=64, head_batch=3
    )
    assert setup.resolve_numerics(model, CPU) == Numerics(
        blocks="bfloat16", newton_schulz="bfloat16", token_slice=64, head_batch=3
    )


def test_the_official_weights_are_fetched_only_where_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(setup, "download", lambda: tmp_path / "fetched.pt")
    model = ModelConfig(checkpoint="scal3r.pt")
    assert setup.resolve_checkpoint(model) == Path("scal3r.pt")
    allowed = replace(model, allow_download=True)
    assert setup.resolve_checkpoint(allowed) == tmp_path / "fetched.pt"
    assert setup.resolve_checkpoint(replace(allowed, checkpoint="mine.pt")) == Path("mine.pt")
