"""The comparison with common shortcuts shows what it says it shows, at reduced size."""

import json
from argparse import ArgumentParser

from scal3r_ros.bench import shortcuts
from scal3r_ros.bench.city import drive
from scal3r_ros.bench.mapping import METRES


def test_overlap_survives_overload_and_a_ring_by_position_does_not(tmp_path, capsys):
    parser = ArgumentParser()
    shortcuts.add_arguments(parser)
    out = tmp_path / "new" / "shortcuts.json"
    ring, thinned = shortcuts.run(parser.parse_args(["--quick", "--out", str(out)]))
    assert ring.sharing == 0.0 and thinned.sharing == 1.0
    assert thinned.ate < 1.0 < 10.0 * thinned.ate < ring.ate
    assert [row["way"] for row in json.loads(out.read_text())] == [ring.way, thinned.way]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_points_move_with_a_closed_loop():
    city = drive(1500, METRES, 48, 16)
    left, moved = shortcuts.looped_maps(city, 545)
    assert left.loops == moved.loops > 0
    assert moved.median < left.median and moved.p90 < 0.5 * left.p90
