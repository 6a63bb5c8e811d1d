"""The ROS Python libraries where they import, else stand-ins with the same calls and results.

cv_bridge's compiled half fails on a numpy of another major version, and none of the four can be had
outside a ROS installation. Nothing else in the package knows which one it uses; `SOURCES` tells.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

SOURCES: dict[str, str] = {}
"""Library name to `library` or `stand-in`."""


def _library(name: str, submodule: str = "") -> ModuleType:
    full_name = f"{name}.{submodule}" if submodule else name
    try:
        module = importlib.import_module(full_name)
        if name == "cv_bridge":
            importlib.import_module("cv_bridge.boost.cv_bridge_boost")
            _check_generation(module)
        SOURCES[name] = "library"
    except (ImportError, AttributeError):
        module = importlib.import_module(f"scal3r_ros.nodes.base.stand_ins.{submodule or name}")
        SOURCES[name] = "stand-in"
    return module


def _check_generation(cv_bridge: ModuleType) -> None:
    """Raise `ImportError` for the library of ROS 1, which package indexes offer under this name: it
    takes no header."""
    if "header" not in inspect.signature(cv_bridge.CvBridge.cv2_to_imgmsg).parameters:
        raise ImportError("cv_bridge is that of ROS 1")


_cv_bridge = _library("cv_bridge")
_tf2_ros = _library("tf2_ros")
point_cloud2 = _library("sensor_msgs_py", "point_cloud2")
tf_transformations = _library("tf_transformations")

CvBridge = _cv_bridge.CvBridge
CvBridgeError = _cv_bridge.CvBridgeError
Buffer = _tf2_ros.Buffer
TransformListener = _tf2_ros.TransformListener
TransformBroadcaster = _tf2_ros.TransformBroadcaster
StaticTransformBroadcaster = _tf2_ros.StaticTransformBroadcaster
TransformException = _tf2_ros.TransformException
LookupException = _tf2_ros.LookupException
ConnectivityException = _tf2_ros.ConnectivityException
ExtrapolationException = _tf2_ros.ExtrapolationException
