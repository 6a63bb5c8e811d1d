"""What several tests of reconstructors need."""

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small random checkpoint."""
    from network_chain import save_network

    folder = tmp_path_factory.mktemp("weights")
    save_network(folder)
    return folder
