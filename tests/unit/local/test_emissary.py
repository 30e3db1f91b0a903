"""What the local cloud knows of Emissary: its key, its secret, its clients."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest
from websockets.datastructures import Headers

from emissary_lib.exit_status import Exit, exit_status
from emissary_lib.protocol.auth.headers import NONCE, RELAY_TOKEN, SESSION
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.wire.base64 import encode_unpadded
from emissary_local.application import Application
from emissary_local.emissary import Emissary, application_of, classify, error_for_command
from emissary_local.errors import SettingsError, TemplateError
from emissary_local.gateway.client_role import ClientRole
from emissary_local.template.secrets import SecretSpec

NONCE_BYTES = bytes(range(32))

KEY_SECRET = SecretSpec("Keys", "keys", "arn", object={"kid": 1}, object_key="data", length=64)
OTHER_SECRET = SecretSpec("Other", "other", "arn")


def test_a_dialer_and_its_relay_have_the_same_session() -> None:
    dialer = classify(Headers({NONCE: encode_unpadded(NONCE_BYTES)}))
    relay = classify(Headers({RELAY_TOKEN.lower(): "x", SESSION.upper(): session_id(NONCE_BYTES)}))
    assert (dialer.side, relay.side) == ("dialer", "relay")
    assert dialer.session == relay.session == session_id(NONCE_BYTES)


def test_a_resuming_dialer_is_known_by_the_session_it_names() -> None:
    headers = Headers({NONCE: encode_unpadded(bytes(32)), SESSION: session_id(NONCE_BYTES)})
    assert classify(headers) == ClientRole("dialer", session_id(NONCE_BYTES))


def test_whoever_shows_nothing_readable_is_a_dialer_of_no_session() -> None:
    assert classify(Headers()) == classify(Headers({NONCE: "?"})) == ClientRole("dialer", "")


def test_the_key_is_in_the_form_in_which_the_template_makes_one() -> None:
    application = Emissary()
    (data,) = application.passwords({"Keys": KEY_SECRET, "Other": OTHER_SECRET}).values()
    assert application.facts() == {"key": {"kid": 1, "data": data}}
    assert len(base64.b64decode(data, validate=True)) == 48


@pytest.mark.parametrize("secret", [{"length": 40}, {"object": {"kid": 2}}])
def test_a_secret_that_would_hold_another_key_is_refused_by_place(secret: dict[str, Any]) -> None:
    wrong = dataclasses.replace(KEY_SECRET, **secret)
    with pytest.raises(
        TemplateError, match=r"generates a key with id .*; the local cloud's key has"
    ) as caught:
        Emissary().passwords({"Keys": wrong})
    assert caught.value.where == "Resources.Keys.Properties.GenerateSecretString"


def test_targets_are_refused_for_a_template_of_somebody_else() -> None:
    assert type(application_of(frozenset({"AllowedTargets"}), [("db.internal", 1)])) is Emissary
    assert type(application_of(frozenset(), [])) is Application
    with pytest.raises(SettingsError, match="targets are for Emissary's own template"):
        application_of(frozenset(), [("db.internal", 1)])


def test_errors_have_the_exit_statuses_of_the_command() -> None:
    assert exit_status(error_for_command(SettingsError("wrong"))) == Exit.SETTINGS
    assert exit_status(error_for_command(TemplateError("wrong"))) == Exit.FAILED
