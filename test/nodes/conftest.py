"""Every test of the nodes runs in the isolated DDS domain."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _isolated(ros_domain):
    return ros_domain
