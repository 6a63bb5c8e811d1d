"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real sequences; they are not part of the repository."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("SCAL3R_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real sequences are absent: set SCAL3R_TEST_DATA (looked in {folder})")
    return folder
