"""Temporary folders: gone with their process, however it ends; nobody else's are touched."""

import subprocess
import sys

from scal3r_ros.scratch import ScratchFolder

HOLD = """
import sys
from scal3r_ros.scratch import ScratchFolder
folder = ScratchFolder("chunks_", sys.argv[1])
(folder.path / "tensor").write_bytes(b"0" * 1000)
print(folder.path, flush=True)
sys.stdin.read()
"""


def hold(place):
    """A process with a folder, and the folder's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return process, process.stdout.readline().decode().strip()


def names(place):
    return {str(path) for path in place.iterdir()}


def test_what_a_killed_process_leaves_goes_at_the_next_start(tmp_path):
    (tmp_path / "chunks_of_somebody_else").mkdir()
    living, kept = hold(tmp_path)
    killed, left = hold(tmp_path)
    killed.kill()
    killed.wait()
    assert left in names(tmp_path)
    mine = ScratchFolder("chunks_", tmp_path)
    other = str(tmp_path / "chunks_of_somebody_else")
    assert names(tmp_path) == {kept, other, str(mine.path)}
    mine.remove()
    mine.remove()
    living.communicate(b"")
    assert living.returncode == 0 and names(tmp_path) == {other}


def test_two_in_one_process_stay_apart(tmp_path):
    first, second = ScratchFolder("chunks_", tmp_path), ScratchFolder("chunks_", tmp_path)
    assert names(tmp_path) == {str(first.path), str(second.path)}
    first.remove()
    assert names(tmp_path) == {str(second.path)}
    del second
    assert not names(tmp_path)
