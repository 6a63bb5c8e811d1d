"""A `nav_msgs/Path` in the very bytes that the middleware sends, written column by column.

The path is sent with every chunk and holds a thousand poses or more. As objects of Python they cost
ten times what mapping the chunk costs. Layout: CDR (OMG DDSI-RTPS 2.5, section 10; OMG CORBA 3.3,
section 9.3): numbers of the machine's byte order, each at a multiple of its size, counted from
behind the four bytes that name the layout; a text is its length with the final zero, then its
bytes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence

import numpy as np

from scal3r_ros import rigid

_LAYOUT = b"\0\1\0\0" if sys.byteorder == "little" else b"\0\0\0\0"


def path_bytes(poses: np.ndarray, stamps_ns: Sequence[int], frame_id: str) -> bytes:
    """Path of poses (N, 4, 4), each with its own stamp; its own stamp is the newest one."""
    name = frame_id.encode() + b"\0"
    newest = stamps_ns[-1] if len(poses) else 0
    start = struct.pack("=iII", *divmod(int(newest), 10**9), len(name)) + name
    start += bytes(-len(start) % 4) + struct.pack("=I", len(poses))
    columns = _columns(poses, np.asarray(stamps_ns, np.int64), name)
    # Behind its eight-byte numbers every pose but the first one begins at a multiple of eight.
    first = _filled(columns, slice(0, 1), name, len(start))
    return _LAYOUT + start + first + _filled(columns, slice(1, None), name, 0)


def _columns(poses: np.ndarray, stamps_ns: np.ndarray, name: bytes) -> dict[str, np.ndarray]:
    return {
        "sec": stamps_ns // 10**9,
        "nanosec": stamps_ns % 10**9,
        "length": np.full(len(poses), len(name)),
        "name": np.full(len(poses), name),
        "position": poses[:, :3, 3],
        "orientation": rigid.quaternion(poses[:, :3, :3]),
    }


def _filled(columns: dict[str, np.ndarray], rows: slice, name: bytes, offset: int) -> bytes:
    """Poses in a row, of which the first begins at `offset`."""
    pose = 12 + len(name) + -(offset + 12 + len(name)) % 8
    layout = np.dtype(
        {
            "names": list(columns),
            "formats": ["i4", "u4", "u4", f"S{len(name)}", "(3,)f8", "(4,)f8"],
            "offsets": [0, 4, 8, 12, pose, pose + 24],
            "itemsize": pose + 56,
        }
    )
    filled = np.zeros(len(columns["sec"][rows]), layout)
    for field, values in columns.items():
        filled[field] = values[rows]
    return filled.tobytes()
