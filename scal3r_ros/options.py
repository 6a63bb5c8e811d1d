"""Options: how a configuration section declares its fields, is checked, and is read from a
dictionary.

A section is a frozen dataclass derived from `Section` whose fields are made with `option(...)`. The
metadata (text, unit, range, choices) is the single source for validation, error messages, ROS
parameters and the generated documentation.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


def option(
    default: Any,
    text: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one option: default value, one-line text, unit, inclusive range or allowed words."""
    metadata = {
        "text": text,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


class OutOfRange(ValueError):
    """One option has a value that it cannot have; the message begins with its name."""


@dataclass(frozen=True)
class Option:
    """A declared option as documentation, ROS parameters and error messages need it."""

    name: str
    """Dotted path, e.g. `chunk.size`."""
    default: Any
    text: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Base of all configuration sections: every field is checked against its declaration."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if "text" in item.metadata:
                object.__setattr__(self, item.name, _checked(item, getattr(self, item.name)))
        self.check()

    def check(self) -> None:
        """Check what concerns several fields; raises `ValueError`."""


def walk_options(section: type[Section] | Section, prefix: str = "") -> Iterator[Option]:
    """Yield every option below a section class or instance, depth first in declaration order.

    For an instance the option's `default` is the instance's value.
    """
    instance = section() if isinstance(section, type) else section
    for item in fields(instance):
        value = getattr(instance, item.name)
        if isinstance(value, Section):
            yield from walk_options(value, f"{prefix}{item.name}.")
        else:
            yield Option(f"{prefix}{item.name}", value, **item.metadata)


def from_dict(cls: type[Section], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Build a section from nested or dotted keys; unknown keys are refused with the nearest
    known name."""
    nested = _nest(values)
    known = {item.name: item for item in fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in nested.items():
        if key not in known:
            raise ValueError(
                unknown_option(f"{prefix}{key}", [o.name for o in walk_options(cls, prefix)])
            )
        default = getattr(cls(), key)
        if isinstance(default, Section):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"{prefix}{key} is a section with options of its own, found {value!r}"
                )
            arguments[key] = from_dict(type(default), value, f"{prefix}{key}.")
        else:
            arguments[key] = value
    try:
        return cls(**arguments)
    except OutOfRange as error:
        raise ValueError(f"{prefix}{error}") from error


def to_dict(section: Section) -> dict[str, Any]:
    """Flat dictionary of dotted option names to values."""
    return {item.name: item.default for item in walk_options(section)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted options as dotted names to values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def unknown_option(name: str, known: list[str]) -> str:
    """Error text for an option nobody declared, with the nearest known name if there is one."""
    sections = sorted({".".join(k.split(".")[: i + 1]) for k in known for i in range(k.count("."))})
    near = difflib.get_close_matches(name, known + sections, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known sections: {', '.join(sections)}"
    return f"unknown option {name}; {hint}"


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        head, _, rest = str(key).partition(".")
        if not rest:
            nested[head] = (
                {**nested[head], **value}
                if isinstance(value, Mapping) and head in nested
                else value
            )
        else:
            nested[head] = {**nested.get(head, {}), rest: value}
    return nested


def _checked(item: dataclasses.Field, value: Any) -> Any:
    default, data = item.default, item.metadata
    name = f"{item.name}" + (f" [{data['unit']}]" if data["unit"] else "")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        value = tuple(float(v) for v in value)
        if len(value) != len(default):
            raise OutOfRange(f"{name} needs {len(default)} numbers, found {len(value)}")
    if type(value) is not type(default):
        raise OutOfRange(f"{name} must be {type(default).__name__}, found {value!r}")
    if data["choices"] and value not in data["choices"]:
        raise OutOfRange(f"{name} must be one of {', '.join(data['choices'])}; found {value!r}")
    if data["minimum"] is not None and not value >= data["minimum"]:
        raise OutOfRange(f"{name} must be at least {data['minimum']}, found {value}")
    if data["maximum"] is not None and not value <= data["maximum"]:
        raise OutOfRange(f"{name} must be at most {data['maximum']}, found {value}")
    return value
