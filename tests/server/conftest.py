"""A server as people start it, and clients of it."""

import pytest
from helpers.live_server import start


@pytest.fixture(scope="session")
def live():
    """A server of atlas, for all tests that leave it as it was."""
    server = start("atlas")
    yield server
    server.stop()


@pytest.fixture
def served():
    """Starts servers that end with the test."""
    servers = []

    def serve(*words, **environment):
        servers.append(start(*words, **environment))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()
