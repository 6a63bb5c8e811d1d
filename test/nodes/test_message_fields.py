"""Messages are built with fields that they have; newer rclpy ignores any other without a word."""

import ast
import importlib
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*ROOT.glob("scal3r_ros/nodes/**/*.py"), *ROOT.glob("tools/demo*.py")])


def interfaces(tree: ast.AST) -> dict[str, type]:
    """Message and service classes that a module imports, by the name it uses."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith((".msg", ".srv")):
            module = importlib.import_module(node.module)
            found |= {
                alias.asname or alias.name: getattr(module, alias.name) for alias in node.names
            }
    return found


def constructed(function: ast.expr, known: dict[str, type]) -> type | None:
    """Class that a call constructs: a message, or the request or response of a service."""
    if isinstance(function, ast.Name):
        return known.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return getattr(known.get(function.value.id), function.attr, None)
    return None


def unknown_fields(text: str) -> list[str]:
    tree = ast.parse(text)
    known = interfaces(tree)
    problems = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        kind = constructed(call.func, known)
        if kind is None or not hasattr(kind, "get_fields_and_field_types"):
            continue
        fields = kind.get_fields_and_field_types()
        problems += [
            f"line {call.lineno}: {kind.__name__} has no field {word.arg}"
            for word in call.keywords
            if word.arg and word.arg not in fields
        ]
    return problems


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_constructors_name_existing_fields(path):
    assert unknown_fields(path.read_text()) == []


def test_a_wrong_field_is_found():
    text = "from std_srvs.srv import SetBool\nfrom std_msgs.msg import Header as H\n"
    text += "SetBool.Request(dta=True)\nH(frame_id='a', stmp=None)\n"
    assert unknown_fields(text) == [
        "line 3: SetBool_Request has no field dta",
        "line 4: Header has no field stmp",
    ]
