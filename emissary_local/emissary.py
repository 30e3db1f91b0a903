"""All that the local cloud knows of Emissary.

No other module in it imports ``emissary_lib``, but for the bill, which has its prices there: they are AWS's.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from emissary_lib.protocol.auth.headers import NONCE, RELAY_TOKEN, SESSION
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.errors import ConfigError, EmissaryError
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded
from emissary_local.application import Application
from emissary_local.cloud import Cloud
from emissary_local.errors import LocalCloudError, SettingsError, TemplateError
from emissary_local.gateway.client_role import ClientRole
from emissary_local.template.secrets import SecretSpec, draw_password

#: How many letters and digits the data of a key has that the template makes: the base64 of 48 bytes.
KEY_CHARACTERS: Final = 64

#: The parameter by which Emissary's template is recognised.
_TARGETS: Final = "AllowedTargets"


class Emissary(Application):
    """What Emissary's template needs: a shared key, targets, and no limit on sessions.

    Args:
        targets: Hosts and ports that may be reached.

    Attributes:
        key: The shared key that dialers use, random.
    """

    url_variables = ("EMISSARY_WEBSOCKET_URL",)
    classify = f"{__name__}:classify"

    def __init__(self, targets: Sequence[tuple[str, int]] = ()) -> None:
        self._targets = list(targets)
        self._key_data = draw_password(KEY_CHARACTERS)
        self.key = Key(1, base64.b64decode(self._key_data))
        self.parameters = {
            _TARGETS: json.dumps([{"host": host, "port": port} for host, port in targets]),
            # Its default is for a new account, with ten units of concurrency.
            "MaxSessions": "0",
        }

    def passwords(self, secrets: Mapping[str, SecretSpec]) -> dict[str, str]:
        """See :meth:`Application.passwords`: the secret in which the template has a key made holds ours."""
        found = {}
        for name, spec in secrets.items():
            if spec.object is None or set(spec.object) != {"kid"} or spec.object_key != "data":
                continue
            made, known = (spec.object["kid"], spec.length), (self.key.key_id, len(self._key_data))
            if made != known:
                raise TemplateError(
                    f"generates a key with id and length {made}; the local cloud's key has {known}",
                    where=f"Resources.{name}.Properties.GenerateSecretString",
                )
            found[name] = self._key_data
        return found

    def facts(self) -> dict[str, Any]:
        """See :meth:`Application.facts`."""
        return {"key": json.loads(format_keys([self.key]))[0]}

    def client_variables(self, url: str) -> dict[str, str]:
        """See :meth:`Application.client_variables`."""
        return {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([self.key])}

    def notes(self) -> list[str]:
        """See :meth:`Application.notes`."""
        targets = [f"  {host}:{port}" for host, port in self._targets]
        return ["Targets that may be reached:", *(targets or ["  none (name some with --target)"])]


class LocalCloud(Cloud):
    """The local cloud for Emissary's template; any other runs in it as well.

    A secret in which the template has a shared key made gets ``key``. The template parameters
    ``AllowedTargets`` and ``MaxSessions`` (no limit) are set, if the template has them.

    Args:
        template: The SAM template; the functions' code is looked for beside it.
        targets: Hosts and ports that may be reached.
        options: All others of :class:`~emissary_local.cloud.Cloud`.

    Attributes:
        key: The shared key that dialers use.
    """

    def __init__(
        self,
        template: str | os.PathLike[str] = "template.yaml",
        *,
        targets: Sequence[tuple[str, int]] = (),
        **options: Any,
    ) -> None:
        application = Emissary(targets)
        super().__init__(template, application=application, **options)
        self.key = application.key

    def rotate_keys(self, keys: Sequence[Key], secret: str | None = None) -> None:
        """Put a list of shared keys into the secret; functions see it when their cached copy has aged.

        Raises:
            LocalCloudError: As :meth:`put_secret`.
        """
        self.put_secret(format_keys(keys), secret)


def application_of(parameters: frozenset[str], targets: Sequence[tuple[str, int]]) -> Application:
    """What a template that declares these parameters needs.

    Raises:
        SettingsError: If targets are given to a template that is not Emissary's.
    """
    if _TARGETS in parameters:
        return Emissary(targets)
    if targets:
        raise SettingsError(
            f"the template has no parameter {_TARGETS}: targets are for Emissary's own template"
        )
    return Application()


def classify(headers: Mapping[str, str]) -> ClientRole:
    """Which end of which session an upgrade request comes from. Checks nothing.

    Whoever shows no relay token is a dialer.
    """
    side = "relay" if RELAY_TOKEN in headers else "dialer"
    if SESSION in headers:
        return ClientRole(side, headers[SESSION].strip())
    try:
        session = session_id(decode_unpadded(headers[NONCE].strip())) if NONCE in headers else ""
    except EncodingError:
        session = ""
    return ClientRole(side, session)


def parse_target(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``.

    Raises:
        SettingsError: If it is malformed.
    """
    try:
        target = Target.parse(text)
    except ConfigError as exc:
        raise SettingsError(str(exc)) from exc
    return target.host, target.port


def error_for_command(error: LocalCloudError) -> EmissaryError:
    """The same error in the library's classes, by which the ``emissary`` command finds its exit status."""
    return ConfigError(str(error)) if isinstance(error, SettingsError) else EmissaryError(str(error))
