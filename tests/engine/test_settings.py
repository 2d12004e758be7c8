"""settings: what a user may set, by name."""

import pytest

from edge_eft.engine.settings import request_for
from edge_eft.errors import RequestError


def test_an_unknown_setting_is_named():
    with pytest.raises(RequestError, match="there is no setting 'x'"):
        request_for("hi", {"x": 1})
