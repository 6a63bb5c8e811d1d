"""Sizes in a stranger's checkpoint are refused before a network is built from them."""

import dataclasses
import time

import pytest

pytest.importorskip("torch")
from scal3r_ros.networks.loger.architecture import PRESETS as LOGER  # noqa: E402
from scal3r_ros.networks.mem3r.architecture import PRESETS as MEM3R  # noqa: E402
from scal3r_ros.networks.scal3r.architecture import PRESETS as SCAL3R  # noqa: E402

KNOWN = [*SCAL3R.values(), *LOGER.values(), *MEM3R.values()]
FAMILIES = [SCAL3R["scal3r"], LOGER["loger"], MEM3R["cut3r-512"]]


@pytest.mark.parametrize("sizes", KNOWN)
def test_known_sizes_are_read_back(sizes):
    assert type(sizes).from_json(sizes.to_json()) == sizes


@pytest.mark.parametrize("sizes", FAMILIES, ids=["scal3r", "loger", "mem3r"])
def test_no_entry_takes_what_is_beyond_all_sense(sizes):
    started = time.monotonic()
    for item in dataclasses.fields(sizes):
        for value in (None, {}, "wide", float("nan"), float("inf"), -1, 10**9, [10**9], [None] * 9,
                      [0.5], list(range(100_000)), True if item.type != "bool" else 1):  # fmt: skip
            if isinstance(value, str) and item.type == "str":
                continue
            with pytest.raises((ValueError, TypeError), match="."):
                type(sizes).from_dict({item.name: value})
        if item.type == "int" and not item.name.endswith("tokens"):
            with pytest.raises(ValueError, match=f"{item.name} must be a whole number from 1"):
                type(sizes).from_dict({item.name: 0})
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize(
    "text", ["[1]", "3", "{", '{"wings": 2}', "[" * 50_000, '{"depth": 1e999}']
)
def test_what_is_no_table_of_sizes_is_refused(text):
    for sizes in FAMILIES:
        with pytest.raises(ValueError):
            type(sizes).from_json(text)
