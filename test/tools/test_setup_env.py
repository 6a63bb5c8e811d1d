"""The bootstrap: steps run once, again when their inputs change, and CMake exports are mended."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def setup_env():
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ran(setup_env, tmp_path):
    """`ran(first, second)`: runs two steps with these inputs; says which did something."""

    def run(first: bytes, second: bytes, force: bool = False, fail: bool = False) -> list[str]:
        done = []

        def act(name: str) -> None:
            if fail and name == "second":
                raise setup_env.SetupFailed("on purpose")
            done.append(name)

        steps = setup_env.Steps(tmp_path, force)
        steps.run("first", first, lambda: act("first"))
        steps.run("second", second, lambda: act("second"))
        return done

    return run


def test_a_second_run_does_nothing(ran):
    assert ran(b"a", b"b") == ["first", "second"]
    assert ran(b"a", b"b") == []


def test_a_changed_input_repeats_its_step_and_the_later_ones(ran):
    ran(b"a", b"b")
    assert ran(b"a", b"c") == ["second"]
    assert ran(b"x", b"c") == ["first", "second"]
    assert ran(b"x", b"c", force=True) == ["first", "second"]


def test_a_failed_step_is_repeated(ran, setup_env):
    with pytest.raises(setup_env.SetupFailed):
        ran(b"a", b"b", fail=True)
    assert ran(b"a", b"b") == ["second"]


def test_exports_name_the_headers_of_this_machine(setup_env, tmp_path):
    foreign = (
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
        "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;"
        f'{tmp_path}"'
    )
    assert setup_env.foreign_folders(foreign) == [
        "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include",
        "/opt/python/cp311-cp311/include/python3.11",
    ]


def test_this_environment_has_no_foreign_headers(setup_env):
    exports = list(Path(sys.prefix).glob("share/*/cmake/export_*__rosidl_generator_pyExport.cmake"))
    if not exports:
        pytest.skip("no message wheels in this environment")
    for file in exports:
        assert setup_env.foreign_folders(file.read_text()) == [], file.name


def test_only_one_run_at_a_time(setup_env, tmp_path, capfd):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    entered, leave = context.Event(), context.Event()

    def hold() -> None:
        with setup_env.exclusive(tmp_path / "lock"):
            entered.set()
            leave.wait(10)

    process = context.Process(target=hold)
    process.start()
    assert entered.wait(10)
    start = time.monotonic()
    context.Process(target=lambda: (time.sleep(0.3), leave.set())).start()
    with setup_env.exclusive(tmp_path / "lock"):
        assert time.monotonic() - start > 0.2
    process.join(10)
    assert "waiting for another run" in capfd.readouterr().out


def test_a_python_without_wheels_is_refused(setup_env, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 14, 0))
    with pytest.raises(setup_env.SetupFailed, match=r"3\.14 has no ROS wheels; use 3\.10 to 3\.13"):
        setup_env.require_platform(tmp_path / "absent")
