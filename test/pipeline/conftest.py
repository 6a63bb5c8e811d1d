"""What several tests of the pipeline need."""

from dataclasses import replace

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small random checkpoint."""
    from network_chain import save_network

    folder = tmp_path_factory.mktemp("weights")
    save_network(folder)
    return folder


@pytest.fixture(scope="session")
def street():
    """A drive of 60 frames."""
    from oracle import drive

    whole = drive()
    return replace(whole, T_world_camera=whole.T_world_camera[:60])
