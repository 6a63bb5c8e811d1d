"""Point clouds as binary PLY with colour and confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scal3r_ros.files import BadArchive, atomic_file, open_regular
from scal3r_ros.io.source import BadInput

_VERTEX = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("red", "u1"), ("green", "u1"), ("blue", "u1"),
        ("confidence", "<f4"),
    ]
)  # fmt: skip
_TYPES = {
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
}  # fmt: skip


def write_cloud(
    path: str | Path, points: np.ndarray, colors: np.ndarray, confidence: np.ndarray, note: str = ""
) -> None:
    """Write points (N, 3), colours (N, 3) uint8 and confidence (N,); `note` becomes a comment."""
    vertices = np.empty(len(points), _VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = colors[:, channel]
    vertices["confidence"] = confidence
    kinds = {"f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {line}" for line in note.splitlines()]
    header += [f"element vertex {len(points)}"]
    header += [f"property {kinds[_VERTEX[n].str[1:]]} {n}" for n in _VERTEX.names or ()]
    with atomic_file(path) as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        file.write(vertices.tobytes())


def read_points(path: str | Path) -> np.ndarray:
    """Vertex positions (N, 3) float64 of a PLY file, binary or ASCII; raises `BadInput`."""
    try:
        with open_regular(path) as file:
            data = file.read()
    except BadArchive as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    head, found, body = data.partition(b"end_header")
    lines = head.decode("ascii", "replace").split("\n")
    if not data.startswith(b"ply") or not found:
        raise BadInput(f"{path} is no PLY file")
    body = body[2 if body.startswith(b"\r\n") else 1 :]
    try:
        form, count, fields = _parse_header(lines, path)
        points = _read_vertices(body, form, count, fields, path)
    except (IndexError, ValueError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: its header or its vertices are damaged ({error})") from error
    if not np.isfinite(points).all():
        raise BadInput(f"{path} has points that are not finite; remove them")
    return points


def _read_vertices(
    body: bytes, form: str, count: int, fields: list[tuple[str, str]], path: str | Path
) -> np.ndarray:
    """(N, 3) float64."""
    if form == "ascii":
        table = np.array(body.split()[: count * len(fields)], dtype=np.float64)
        if table.size != count * len(fields):
            raise BadInput(f"{path} is cut off: fewer than {count} vertices")
        rows = table.reshape(count, len(fields))
        names = [name for name, _ in fields]
        return np.stack([rows[:, names.index(axis)] for axis in "xyz"], axis=1)
    order = "<" if form == "binary_little_endian" else ">"
    dtype = np.dtype([(name, order + kind) for name, kind in fields])
    if len(body) < count * dtype.itemsize:
        raise BadInput(f"{path} is cut off: fewer than {count} vertices")
    vertices = np.frombuffer(body, dtype, count)
    return np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _parse_header(lines: list[str], path: str | Path) -> tuple[str, int, list[tuple[str, str]]]:
    form, count, fields, element = "", -1, [], ""
    for words in (line.split() for line in lines):
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            if count < 0 and words[1] != "vertex":
                raise BadInput(f"{path}: vertices must come first, found {words[1]}")
            element = words[1]
            count = int(words[2]) if element == "vertex" else count
        elif words[:1] == ["property"] and element == "vertex":
            if words[1] not in _TYPES:
                raise BadInput(f"{path}: vertex property of type {words[1]} is not supported")
            fields.append((words[2], _TYPES[words[1]]))
    if count < 0 or not {"x", "y", "z"} <= {name for name, _ in fields}:
        raise BadInput(f"{path} has no vertices with x, y, z")
    return form, count, fields
