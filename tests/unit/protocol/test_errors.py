"""Errors of the core that cross a process's border."""

from __future__ import annotations

import pickle

import pytest

from emissary_lib.protocol.errors import AuthenticationError, ConfigError, EmissaryError, RemoteProtocolError


@pytest.mark.parametrize(
    "error",
    [ConfigError("one fault", "another"), AuthenticationError("wrong key"), RemoteProtocolError("no")],
)
def test_an_error_is_the_same_in_another_process(error: EmissaryError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)


class _SystemError(EmissaryError, OSError):
    pass


def test_the_system_s_number_goes_along() -> None:
    assert pickle.loads(pickle.dumps(_SystemError(24, "too many"))).errno == 24
