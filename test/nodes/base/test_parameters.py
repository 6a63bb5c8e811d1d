"""Options become ROS parameters with text, range and type, and come back as checked sections."""

from dataclasses import dataclass, field

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
from rclpy.node import Node
from rclpy.parameter import Parameter

from scal3r_ros.config import Config
from scal3r_ros.nodes.base import parameters
from scal3r_ros.options import Section, option, to_dict, walk_options

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class Inner(Section):
    size: int = option(6, "Frames per chunk.", minimum=2, maximum=100)
    overlap: int = option(3, "Frames shared.", minimum=1)
    mode: str = option("fast", "How.", choices=("fast", "slow"))
    anchors: tuple = option((1.0, 2.0), "Two numbers.")

    def check(self) -> None:
        if self.overlap >= self.size:
            raise ValueError(f"overlap ({self.overlap}) must be smaller than size ({self.size})")


@dataclass(frozen=True)
class Outer(Section):
    inner: Inner = field(default_factory=Inner)
    rate: float = option(1.5, "How often.", unit="Hz", minimum=0.0)
    name: str = option("", "A word.")
    on: bool = option(True, "A switch.")


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(**overrides) -> Node:
        given = [Parameter(name.replace("__", "."), value=v) for name, v in overrides.items()]
        nodes.append(Node("parameter_test", parameter_overrides=given))
        return nodes[-1]

    yield make
    for item in nodes:
        item.destroy_node()


def test_every_option_of_the_method_is_declared_and_read_back(make_node):
    node = make_node()
    parameters.declare(node, Config())
    for item in walk_options(Config()):
        descriptor = node.describe_parameter(item.name)
        assert descriptor.description.startswith(item.text) and descriptor.read_only
        for choice in item.choices:
            assert choice in descriptor.additional_constraints
    assert parameters.read(node, Config()) == Config()


def test_defaults_of_an_instance_are_used(make_node):
    node = make_node()
    parameters.declare(node, Outer(rate=4.0))
    assert parameters.read(node, Outer()).rate == 4.0


def test_overrides_arrive(make_node):
    node = make_node(inner__size=50, rate=0.0, inner__mode="slow", inner__anchors=[3.0, 4.0])
    parameters.declare(node, Outer())
    expected = Outer(inner=Inner(size=50, mode="slow", anchors=(3.0, 4.0)), rate=0.0)
    assert parameters.read(node, Outer()) == expected


def test_description_has_unit_and_range(make_node):
    node = make_node()
    parameters.declare(node, Outer(), live=["inner"])
    rate = node.describe_parameter("rate")
    assert rate.description == "How often. [Hz]"
    assert rate.floating_point_range[0].from_value == 0.0
    assert rate.floating_point_range[0].to_value > 1e300
    size = node.describe_parameter("inner.size")
    assert (size.integer_range[0].from_value, size.integer_range[0].to_value) == (2, 100)
    assert rate.read_only and not size.read_only


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"rate": 2}, r"rate is a float: write 2\.0 instead of 2"),
        ({"inner__size": 1.0}, "inner.size is 1.0, expected int"),
        ({"inner__size": 101}, "inner.size is 101, expected int between 2 and 100"),
        ({"rate": -1.0}, "rate is -1.0, expected float between 0.0 and inf"),
        ({"on": "yes"}, "on is 'yes', expected bool"),
    ],
)
def test_wrong_overrides_are_explained(make_node, overrides, words):
    with pytest.raises(ValueError, match=words):
        parameters.declare(make_node(**overrides), Outer())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [({"inner__overlap": 6}, "must be smaller"), ({"inner__mode": "odd"}, "one of fast, slow")],
)
def test_options_that_do_not_fit_together_are_refused(make_node, overrides, words):
    node = make_node(**overrides)
    parameters.declare(node, Outer())
    with pytest.raises(ValueError, match=words):
        parameters.read(node, Outer())


def test_updates_are_checked_together_and_all_or_none(make_node):
    node = make_node()
    parameters.declare(node, Outer(), live=["inner"])
    current = parameters.read(node, Outer())
    node.add_on_set_parameters_callback(lambda p: parameters.check_update(current, p))
    both = [Parameter("inner.overlap", value=8), Parameter("inner.size", value=9)]
    assert node.set_parameters_atomically(both).successful
    worse = [Parameter("inner.size", value=20), Parameter("inner.overlap", value=30)]
    refused = node.set_parameters_atomically(worse)
    assert not refused.successful and "overlap (30) must be smaller" in refused.reason
    assert parameters.read(node, Outer()).inner == Inner(size=9, overlap=8)
    assert not node.set_parameters([Parameter("rate", value=3.0)])[0].successful
    assert parameters.updated(current, both).inner.size == 9


def test_unknown_overrides_are_named_with_the_nearest(make_node):
    node = make_node(inner__sise=4, use_sim_time=False, inner__size=4)
    parameters.declare(node, Outer())
    assert parameters.unknown_overrides(node, Outer()) == [
        "unknown option inner.sise; did you mean inner.size?"
    ]


def test_read_matches_the_flat_dictionary(make_node):
    node = make_node()
    parameters.declare(node, Outer())
    assert to_dict(parameters.read(node, Outer())) == to_dict(Outer())
