"""What a user is told about the reconstructor that was chosen."""

import pytest

from scal3r_ros.config import Config, MemoryConfig, ModelConfig
from scal3r_ros.reconstruct.factory import known_limits, open_reconstructor


def test_only_the_embedded_network_comes_with_a_warning():
    limits = known_limits(Config())
    assert "sfm" in limits and "scal3r download" in limits
    assert known_limits(Config(model=ModelConfig(reconstructor="sfm"))) == ""
    assert known_limits(Config(model=ModelConfig(checkpoint="scal3r.pt"))) == ""


@pytest.mark.parametrize("mode", ["batch", "finalize"])
def test_a_memory_mode_is_not_promised_where_there_is_no_memory(mode):
    config = Config(model=ModelConfig(reconstructor="sfm"), memory=MemoryConfig(mode=mode))
    with pytest.raises(ValueError, match=f"{mode} needs a network with a memory"):
        open_reconstructor(config)
