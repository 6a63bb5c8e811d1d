"""The pose graph as markers: one sphere per chunk, lines for neighbours and for loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from scal3r_ros.nodes.base.conversions import header

NODE_COLOR = ColorRGBA(r=0.2, g=0.6, b=1.0, a=1.0)
CHAIN_COLOR = ColorRGBA(r=0.7, g=0.7, b=0.7, a=0.8)
LOOP_MARKER_COLOR = ColorRGBA(r=1.0, g=0.2, b=0.2, a=1.0)


def graph_markers(
    nodes: np.ndarray,
    chain: Sequence[tuple[np.ndarray, np.ndarray]],
    loops: Sequence[tuple[np.ndarray, np.ndarray]],
    frame_id: str,
    stamp_ns: int,
) -> MarkerArray:
    """Nodes (N, 3) and edges as pairs of positions, in the map frame.

    There is one marker of each kind with a fixed id, so a newer message replaces an older one; an
    empty kind is deleted.
    """
    kinds = [
        ("nodes", Marker.SPHERE_LIST, NODE_COLOR, 0.06, list(nodes)),
        ("chain", Marker.LINE_LIST, CHAIN_COLOR, 0.015, [end for edge in chain for end in edge]),
        (
            "loops",
            Marker.LINE_LIST,
            LOOP_MARKER_COLOR,
            0.03,
            [end for edge in loops for end in edge],
        ),
    ]
    size = _extent(nodes)
    markers = MarkerArray()
    for name, kind, color, width, points in kinds:
        marker = Marker(header=header(frame_id, stamp_ns), ns=name, id=0, type=kind, color=color)
        marker.action = Marker.ADD if points else Marker.DELETE
        marker.scale.x = marker.scale.y = marker.scale.z = width * size
        marker.pose.orientation.w = 1.0
        marker.points = [Point(x=float(p[0]), y=float(p[1]), z=float(p[2])) for p in points]
        markers.markers.append(marker)
    return markers


def _extent(nodes: np.ndarray) -> float:
    """Typical distance of neighbouring nodes, so that markers fit maps of any scale."""
    if len(nodes) < 2:
        return 1.0
    steps = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    return float(max(np.median(steps), 1e-6))
