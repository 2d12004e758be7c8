"""A model of 60,000 parameters; its weights are shared by the contexts that tests make."""

import pytest

from edge_eft.backend import Model


@pytest.fixture(scope="module")
def tiny_model(tiny):
    return Model(tiny.base)
