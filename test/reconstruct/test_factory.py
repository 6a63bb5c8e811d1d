"""What a user is told about the reconstructor that was chosen."""

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from scal3r_ros.config import Config, MemoryConfig, ModelConfig, SfmConfig
from scal3r_ros.networks import xfeat
from scal3r_ros.nodes.base.node_config import NodeConfig, WorkerConfig
from scal3r_ros.nodes.mapping.loading import check_prerequisites
from scal3r_ros.reconstruct.factory import (
    UNUSED,
    MissingLibrary,
    changed_options,
    known_limits,
    open_features,
    open_reconstructor,
)
from scal3r_ros.workers.torchrun import opened_reconstructor


def test_only_the_embedded_network_comes_with_a_warning():
    limits = known_limits(Config(model=ModelConfig(reconstructor="scal3r")))
    assert "sfm" in limits and "scal3r download" in limits
    assert known_limits(Config(model=ModelConfig(reconstructor="sfm"))) == ""
    assert known_limits(Config(model=ModelConfig(checkpoint="scal3r.pt"))) == ""


@pytest.mark.parametrize(
    "option", [{"mode": "batch"}, {"mode": "finalize"}, {"decay": 0.5}, {"window": 4}]
)
def test_a_memory_is_not_promised_where_there_is_none(option):
    config = Config(model=ModelConfig(reconstructor="sfm"), memory=MemoryConfig(**option))
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"memory.{name} {value}: reconstructor sfm has nothing"):
        open_reconstructor(config)


def test_a_memory_that_is_no_sum_cannot_fade():
    model = ModelConfig(reconstructor="loger")
    with pytest.raises(ValueError, match="memory.decay 0.5: reconstructor loger has nothing"):
        open_reconstructor(Config(model=model, memory=MemoryConfig(decay=0.5)))


def test_points_are_not_promised_where_there_is_no_point_head():
    config = Config(model=ModelConfig(reconstructor="sfm", point_head=True))
    with pytest.raises(ValueError, match="model.point_head True"):
        open_reconstructor(config)


def test_options_without_effect_are_told():
    model = ModelConfig(reconstructor="sfm", checkpoint="scal3r.pt", threads=2)
    told = known_limits(Config(model=model))
    assert told == "reconstructor sfm does not use model.checkpoint scal3r.pt, model.threads 2"
    config = Config(model=ModelConfig(checkpoint="scal3r.pt"), sfm=SfmConfig(seed=3))
    assert known_limits(config) == "reconstructor scal3r does not use sfm.seed 3"


def test_what_every_reconstructor_leaves_unused_is_declared_and_exists():
    choices = {f.name: f for f in fields(ModelConfig)}["reconstructor"].metadata["choices"]
    assert set(UNUSED) == set(choices) - {"auto"}
    for unused in UNUSED.values():
        assert changed_options(Config(), (*unused.refused, *unused.reported)) == []


@pytest.mark.parametrize("name", ["loger", "loger-star"])
def test_a_memory_that_passes_on_is_not_shared_among_processes(name, monkeypatch):
    model = ModelConfig(reconstructor=name)
    node = NodeConfig(model=model, worker=WorkerConfig(count=2))
    with pytest.raises(ValueError, match=f"worker.count 2 .*{name} goes.*model.devices"):
        check_prerequisites(node)
    with pytest.raises(ValueError, match=f"{name} needs weights"):
        check_prerequisites(NodeConfig(model=model))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="torchrun wants several"):
        with opened_reconstructor(Config(model=model)):
            pass


CRAMPED = """
import resource
from scal3r_ros.config import Config, ModelConfig
from scal3r_ros.reconstruct.factory import MissingLibrary, open_reconstructor
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
try:
    open_reconstructor(Config(model=ModelConfig(reconstructor="scal3r")))
except MissingLibrary as error:
    print(error)
"""


def test_a_library_that_memory_is_too_short_for_is_not_called_absent():
    pytest.importorskip("torch")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED], env=environment, capture_output=True, text=True
    )
    assert "torch is installed but cannot be loaded" in done.stdout, done.stderr
    assert "pip install" not in done.stdout


def test_features_fall_back_with_a_reason_and_only_for_auto(monkeypatch, caplog):
    def missing():
        raise xfeat.WeightsMissing("pip install it")

    monkeypatch.setattr(xfeat, "weights_file", missing)
    assert open_features("auto").name == "sift"
    assert "pip install it" in caplog.text
    for wanted in ("xfeat", "both"):
        with pytest.raises(MissingLibrary, match="pip install it; or use sfm.features sift"):
            open_features(wanted)
    assert open_features("sift").name == "sift"
