"""The documents agree with the code: links, parameter names, commands and interfaces exist."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scal3r_ros import __version__
from scal3r_ros.config import load
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.options import walk_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OPTIONS = {item.name: item for item in walk_options(NodeConfig)}
SECTIONS = {name.split(".")[0] for name in OPTIONS if "." in name}


def anchors(page: Path) -> set[str]:
    """Names that a `#...` link may use: headings as the usual renderers write them."""
    headings = re.findall(r"^#+ +(.*?)\s*$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target} does not exist"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_are_named_exist(page):
    named = re.findall(r"`([a-z_]+\.[a-z_.]+)(?::? ([^`]*))?`", page.read_text())
    for name, value in named:
        if name.split(".")[0] not in SECTIONS or name.endswith((".py", ".md", ".yaml", ".ply")):
            continue
        assert name in OPTIONS, f"{page.name} names the option {name}, which does not exist"
        for word in re.findall(r"[a-z_0-9]+", value or ""):
            choices = OPTIONS[name].choices
            assert not choices or word in choices, f"{page.name}: {name} has no choice {word}"


def test_parameter_files_in_the_pages_can_be_loaded(tmp_path):
    texts = [text for page in PAGES for text in _yaml(page.read_text()) if "mapping_node:" in text]
    assert texts
    for text in texts:
        (tmp_path / "parameters.yaml").write_text(text)
        load(tmp_path / "parameters.yaml", NodeConfig)


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"\bmake ([a-z]+)\b", _code(page.read_text()))
    }
    assert named and named <= targets, named - targets


def test_defaults_in_the_front_page_are_the_real_ones():
    rows = re.findall(
        r"^\| (`[a-z_.]+`(?:, `[a-z_.]+`)*) \| ([^|]+) \|", (ROOT / "README.md").read_text(), re.M
    )
    checked = 0
    for names, defaults in rows:
        names = re.findall(r"`([a-z_.]+)`", names)
        if not all(name in OPTIONS for name in names):
            continue
        for name, text in zip(names, defaults.strip().split(", ")):
            expected = str(OPTIONS[name].default) or "empty"
            assert text.strip("`") == expected, f"{name}: README says {text}, default {expected}"
            checked += 1
    assert checked >= 5


def test_services_and_messages_in_the_interface_exist():
    text = (ROOT / "docs" / "interface.md").read_text()
    for name in re.findall(r"scal3r_ros/([A-Z]\w+)", text):
        files = [ROOT / kind / f"{name}.{kind}" for kind in ("msg", "srv", "action")]
        assert any(file.is_file() for file in files), f"docs/interface.md names scal3r_ros/{name}"


def test_versions_agree():
    package = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert package == __version__


def _yaml(text: str) -> list[str]:
    """The YAML blocks."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def _code(text: str) -> str:
    """Only what stands in backticks or code blocks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def test_the_front_page_asks_for_the_torch_that_is_declared():
    (said,) = re.findall(r"torch ≥ ([\d.]+)", (ROOT / "docs" / "install.md").read_text())
    declared = re.findall(r"torch>=([\d.]+)", (ROOT / "setup.py").read_text())
    assert set(declared) == {said}


def test_hops_that_are_described_exist():
    """`file: function` in the walks of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    hops = re.findall(r"`?([a-z_0-9/]+\.py): (\w+)`?", text)
    assert len(hops) > 30
    for path, name in hops:
        code = (ROOT / "scal3r_ros" / path).read_text()
        assert re.search(rf"^ *(def|class) {name}\b", code, re.M), f"{path} has no {name}"
    frame, _, rest = text.partition("### A chunk's way over workers")
    worker = rest.partition("## The memory")[0]
    for walk in (frame, worker):
        files = {path for path, _ in re.findall(r"`([a-z_0-9/]+\.py): (\w+)`", walk)}
        said = int(re.search(r"These are (\d+) files", walk)[1])
        assert len(files) == said, sorted(files)
