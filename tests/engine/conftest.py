"""Drafts on and off: they change no reply, so most tests hold for both."""

import pytest
from helpers.emulator_tools import DRAFTED


@pytest.fixture(params=DRAFTED, ids=["undrafted", "drafted"])
def draft(request):
    return request.param
