"""One room and one walk through it, rendered once."""

import pytest
from box_room import COUNT, BoxRoom, tour


@pytest.fixture(scope="session")
def room():
    return BoxRoom()


@pytest.fixture(scope="session")
def poses():
    return tour(COUNT)


@pytest.fixture(scope="session")
def frames(room, poses):
    return [room.frame(i, pose) for i, pose in enumerate(poses)]
