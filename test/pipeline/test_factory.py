"""What a user is told about the reconstructor that was chosen."""

from scal3r_ros.config import Config, ModelConfig
from scal3r_ros.pipeline.factory import known_limits


def test_only_the_embedded_network_comes_with_a_warning():
    limits = known_limits(Config())
    assert "sfm" in limits and "scal3r download" in limits
    assert known_limits(Config(model=ModelConfig(reconstructor="sfm"))) == ""
    assert known_limits(Config(model=ModelConfig(checkpoint="scal3r.pt"))) == ""
