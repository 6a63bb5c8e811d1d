"""Records what a launch file builds where the ROS package `launch` cannot be had.

Only the names and keyword arguments that the real packages have in Humble and later exist here; any
other is an error, so a launch file that passes uses the real interface. With ROS installed the test
uses the real packages instead.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType

_EXECUTE = (
    "cmd", "name", "cwd", "env", "additional_env", "shell", "sigterm_timeout", "sigkill_timeout",
    "emulate_tty", "output", "output_format", "log_cmd", "on_exit", "respawn", "respawn_delay",
    "condition", "prefix",
)  # fmt: skip
_NODE = (
    "package", "executable", "name", "namespace", "parameters", "remappings", "ros_arguments",
    "arguments", "exec_name", *(word for word in _EXECUTE if word != "cmd"),
)  # fmt: skip
# Module, class, positional parameters in order, keyword-only parameters.
_INTERFACE = [
    ("launch", "LaunchDescription", ("initial_entities",), ()),
    ("launch.actions", "DeclareLaunchArgument", ("name",),
     ("default_value", "description", "choices")),
    ("launch.actions", "EmitEvent", (), ("event", "condition")),
    ("launch.actions", "ExecuteProcess", (), _EXECUTE),
    ("launch.actions", "IncludeLaunchDescription", ("launch_description_source",),
     ("launch_arguments",)),
    ("launch.actions", "LogInfo", (), ("msg", "condition")),
    ("launch.actions", "OpaqueFunction", (), ("function", "args", "kwargs", "condition")),
    ("launch.actions", "RegisterEventHandler", ("event_handler",), ("condition",)),
    ("launch.event_handlers", "OnProcessExit", (), ("target_action", "on_exit", "handle_once")),
    ("launch.events", "Shutdown", (), ("reason", "due_to_sigint")),
    ("launch.launch_description_sources", "PythonLaunchDescriptionSource", ("location",), ()),
    ("launch.substitutions", "LaunchConfiguration", ("variable_name",), ("default",)),
    ("launch.substitutions", "PathJoinSubstitution", ("substitutions",), ()),
    ("launch_ros.actions", "Node", (), _NODE),
    ("launch_ros.substitutions", "ExecutableInPackage", (), ("package", "executable")),
    ("launch_ros.substitutions", "FindPackageShare", ("package",), ()),
]  # fmt: skip


class Recorded:
    """One thing that a launch file made: its class name and the arguments it was given."""

    def __init__(self, kind: str, arguments: dict) -> None:
        self.kind = kind
        self.arguments = arguments

    def __getattr__(self, name: str):
        try:
            return self.arguments[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def perform(self, context: dict[str, str]) -> str:
        """Value of a launch configuration, from a plain dictionary of arguments."""
        return context[self.arguments["variable_name"]]


def _recorder(kind: str, positional: tuple[str, ...], keywords: tuple[str, ...]):
    def make(*values, **arguments) -> Recorded:
        if len(values) > len(positional):
            raise TypeError(f"{kind} takes {len(positional)} positional arguments")
        unknown = set(arguments) - set(keywords) - set(positional)
        if unknown:
            raise TypeError(f"{kind} has no argument {', '.join(sorted(unknown))}")
        return Recorded(kind, {**dict(zip(positional, values)), **arguments})

    return make


@contextmanager
def contract():
    """While it lasts, importing the launch packages gives the recorders."""
    modules: dict[str, ModuleType] = {}
    for module, kind, positional, keywords in _INTERFACE:
        modules.setdefault(module, ModuleType(module))
        setattr(modules[module], kind, _recorder(kind, positional, keywords))
    modules["launch_ros"] = ModuleType("launch_ros")
    saved = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    sys.modules.pop("scal3r_ros.nodes.launching.parts", None)
    try:
        yield
    finally:
        sys.modules.pop("scal3r_ros.nodes.launching.parts", None)
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
