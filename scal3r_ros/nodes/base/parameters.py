"""Configuration sections as ROS parameters: declared, read, updated and documented from one place.

An option may be changed while the node runs if its dotted name, or a section of it, is named as
live by the node; every other parameter is declared read-only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.options import Option, Section, from_dict, to_dict, unknown_option, walk_options

_LARGEST_INTEGER = 2**63 - 1
_BUILT_IN = ("use_sim_time", "qos_overrides", "start_type_description_service")

AnySection = TypeVar("AnySection", bound=Section)


def declare(node, defaults: Section, live: Iterable[str] = ()) -> None:
    """Declare every option below `defaults`; `live` names options or sections that may change.

    Raises `ValueError` when a value that the user gave is of the wrong type or out of range.
    """
    live = tuple(live)
    for option in walk_options(defaults):
        changeable = any(option.name == name or option.name.startswith(f"{name}.") for name in live)
        descriptor = describe(option, read_only=not changeable)
        try:
            node.declare_parameter(option.name, _to_ros(option.default), descriptor)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ValueError(_explain(node, option, error)) from error


def describe(option: Option, read_only: bool) -> ParameterDescriptor:
    """What tools show about a parameter, and the bounds that the middleware itself enforces."""
    descriptor = ParameterDescriptor(description=_text(option), read_only=read_only)
    if option.choices:
        descriptor.additional_constraints = f"one of: {', '.join(option.choices)}"
    bounded = option.minimum is not None or option.maximum is not None
    if bounded and isinstance(option.default, float):
        low = -math.inf if option.minimum is None else option.minimum
        high = math.inf if option.maximum is None else option.maximum
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=_finite(low), to_value=_finite(high))
        ]
    elif bounded and isinstance(option.default, int):
        low = -_LARGEST_INTEGER if option.minimum is None else int(option.minimum)
        high = _LARGEST_INTEGER if option.maximum is None else int(option.maximum)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor


def read(node, defaults: AnySection) -> AnySection:
    """The section with the node's present parameter values; `ValueError` if they do not fit."""
    values = {}
    for option in walk_options(defaults):
        try:
            values[option.name] = _from_ros(node.get_parameter(option.name).value)
        except ParameterUninitializedException as error:
            raise ValueError(f"parameter {option.name} has no value") from error
    return from_dict(type(defaults), values)


def updated(current: AnySection, changes: Iterable[Parameter]) -> AnySection:
    """The section after a parameter change, checked as a whole; `ValueError` if it does not fit."""
    known = to_dict(current)
    relevant = {p.name: _from_ros(p.value) for p in changes if p.name in known}
    return from_dict(type(current), {**known, **relevant})


def check_update(current: Section, changes: Iterable[Parameter]) -> SetParametersResult:
    """Answer of an on-set callback: all changes together or none."""
    try:
        updated(current, changes)
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def unknown_overrides(node, defaults: Section) -> list[str]:
    """One sentence for every parameter that the user gave and no node of the package declares.

    One file may serve mapper and workers, so options of `mapping_node` are known to all.
    """
    options = [*walk_options(defaults), *walk_options(NodeConfig)]
    known = list(dict.fromkeys(option.name for option in options))
    given = _given(node)
    return [
        unknown_option(name, known)
        for name in sorted(given)
        if name not in known and not name.startswith(_BUILT_IN) and not node.has_parameter(name)
    ]


def _given(node) -> dict[str, Parameter]:
    """Values from the command line, a parameter file or the constructor."""
    return node._parameter_overrides  # rclpy has no public way to list them


def _text(option: Option) -> str:
    return f"{option.text} [{option.unit}]" if option.unit else option.text


def _explain(node, option: Option, error: Exception) -> str:
    given = _given(node).get(option.name)
    value = given.value if given is not None else None
    if isinstance(option.default, float) and isinstance(value, int):
        return f"parameter {option.name} is a float: write {float(value)} instead of {value}"
    bounds = ""
    if option.minimum is not None or option.maximum is not None:
        low = "-inf" if option.minimum is None else option.minimum
        high = "inf" if option.maximum is None else option.maximum
        bounds = f" between {low} and {high}"
    expected = type(option.default).__name__
    return f"parameter {option.name} is {value!r}, expected {expected}{bounds}: {error}"


def _finite(bound: float) -> float:
    """Ranges of the middleware know no infinity."""
    return max(-1.7e308, min(1.7e308, float(bound)))


def _to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_ros(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    return tuple(value)
