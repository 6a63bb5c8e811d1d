"""Whatever stands in a file or message, a reader returns what it promises or raises `BadInput`."""

import pytest

from scal3r_ros.bench.fuzz import READERS, fuzz


@pytest.mark.parametrize("reader", READERS)
def test_readers_fail_in_words_only(reader):
    if reader == "packets":
        pytest.importorskip("av", reason="PyAV is optional")
    assert fuzz(reader, examples=60) >= 30
