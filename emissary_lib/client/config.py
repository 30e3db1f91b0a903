"""Settings of the platform's side and what they may be; ``example.env`` explains them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from emissary_lib.client import CONNECTIONS_PER_RELAY, MAX_CONNECTIONS, RELAY_IDLE_SECONDS
from emissary_lib.client.env_file import read_text
from emissary_lib.client.settings import ARGUMENT, ENVIRONMENT, Setting, SettingsReader, warn_of_writers
from emissary_lib.exceptions import ConfigError, OperationError, PackageError
from emissary_lib.protocol.auth.keys import Key, looks_like_keys, parse_keys, shown
from emissary_lib.protocol.constants import PING_INTERVAL, PING_REPEAT, PING_WHEN_UNACKED, PONG_DEADLINE
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.session.keepalive import KeepaliveTimes

URL: Final = "EMISSARY_URL"
AUTH_KEYS: Final = "EMISSARY_AUTH_KEYS"
AUTH_KEYS_FILE: Final = "EMISSARY_AUTH_KEYS_FILE"
AUTH_KEYS_SECRET: Final = "EMISSARY_AUTH_KEYS_SECRET"
CA_FILE: Final = "EMISSARY_CA_FILE"
PING_SECONDS: Final = "EMISSARY_PING_SECONDS"
PONG_SECONDS: Final = "EMISSARY_PONG_SECONDS"
PER_RELAY: Final = "EMISSARY_CONNECTIONS_PER_RELAY"
IDLE_SECONDS: Final = "EMISSARY_RELAY_IDLE_SECONDS"

#: Where keys may stand; one of them is enough, and more than one in the same place is a fault.
KEY_SETTINGS: Final = (AUTH_KEYS, AUTH_KEYS_FILE, AUTH_KEYS_SECRET)

#: What they may be, in seconds; template.yaml takes the same for the relay. NAT gateways and endpoints forget
#: a flow after 350 s.
PING_RANGE: Final = (10.0, 300.0)
PONG_RANGE: Final = (5.0, 60.0)

#: How many connections may share a relay, and how long, in seconds, it may be kept without one: no relay
#: lives as long as that.
PER_RELAY_RANGE: Final = (1, MAX_CONNECTIONS)
IDLE_RANGE: Final = (0.0, 3600.0)

#: Sources that are no files.
_NO_FILES: Final = (ARGUMENT, ENVIRONMENT)

_WANTED: Final = '[{"kid": 1, "data": "<base64>"}]'

_NOT_SET: Final = "is not set"
_T = TypeVar("_T")
_N = TypeVar("_N", int, float)


class GivenKeys(Record):
    """The shared keys that are set.

    Attributes:
        keys: At least one; the first signs.
        source: Where they were found, in words.
        file: The path of the file that they stand in, if they do.
    """

    keys: tuple[Key, ...]
    source: str
    file: str | None = None


class ClientConfig(Record):
    """What a dialer needs.

    Attributes:
        url: The gateway's ``wss://`` URL.
        url_source: Where it was found, in words.
        given: All keys, and where they were found.
        keepalive: When it asks whether the relay is still there. A PING is repeated four times within the
            deadline, whatever that is.
        ca_file: PEM file of authorities to trust beside the usual ones; ``None`` for none.
        connections_per_relay: How many connections share a relay, at most.
        relay_idle_seconds: How long a relay that can be shared is kept without a connection.
    """

    url: str
    url_source: str
    given: GivenKeys
    keepalive: KeepaliveTimes = KeepaliveTimes()
    ca_file: str | None = None
    connections_per_relay: int = CONNECTIONS_PER_RELAY
    relay_idle_seconds: float = RELAY_IDLE_SECONDS

    @property
    def key(self) -> Key:
        """The key it signs with: the first that is given."""
        return self.given.keys[0]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ClientConfig:
        """As :meth:`read`, from the environment alone."""
        return cls.read(SettingsReader(environ, default_file=None))

    @classmethod
    def read(cls, reader: SettingsReader) -> ClientConfig:
        """Read the settings of the platform's side, as example.env explains them.

        Raises:
            ConfigError: Names every setting that is missing or wrong; never shows a key.
            PackageError: No setting is, but one of them needs a package that is not installed.

        Blocking: for a secret, until AWS has answered; for a pipe in a file's place, up to half a minute.
        """
        faults: list[str] = []
        lacking: list[PackageError] = []

        def collect(read: Callable[[], _T]) -> _T | None:
            try:
                return read()
            except ConfigError as exc:
                faults.extend(fault for fault in exc.faults if fault not in faults)
            except PackageError as exc:
                lacking.append(exc)
            return None

        url = collect(lambda: read_url(reader))
        given = collect(lambda: read_keys(reader))
        ca_file = collect(lambda: read_path(reader, CA_FILE))
        interval = collect(lambda: read_seconds(reader, PING_SECONDS, PING_INTERVAL, PING_RANGE))
        deadline = collect(lambda: read_seconds(reader, PONG_SECONDS, PONG_DEADLINE, PONG_RANGE))
        shared = collect(lambda: read_number(reader, PER_RELAY, CONNECTIONS_PER_RELAY, PER_RELAY_RANGE))
        idle = collect(lambda: read_seconds(reader, IDLE_SECONDS, RELAY_IDLE_SECONDS, IDLE_RANGE))
        if any(_NOT_SET in fault for fault in faults):
            faults.append(reader.where())
        if faults:
            raise ConfigError(*faults, *map(str, lacking))
        if lacking:
            raise lacking[0]
        assert url and given and interval and deadline and shared, "else there were faults"
        assert idle is not None, "else there were faults"
        repeat = deadline * PING_REPEAT / PONG_DEADLINE
        times = KeepaliveTimes(interval, min(interval, PING_WHEN_UNACKED), deadline, repeat)
        return cls(url.text, url.source, given, times, ca_file, shared, idle)


def read_url(reader: SettingsReader) -> Setting:
    """The gateway's URL, whatever it looks like.

    Raises:
        ConfigError: It is not set.
    """
    if setting := reader.find(URL, needed=True):
        return setting
    raise _missing_error(URL, "take WebSocketUrl from the stack's outputs", reader)


def read_keys(reader: SettingsReader) -> GivenKeys:
    """The shared keys, wherever they stand.

    Raises:
        ConfigError: No setting says, or they are none, or cannot be read; never shows one.
        PackageError: They are in a secret, and boto3 is not installed.
    """
    found = reader.find_first(KEY_SETTINGS, needed=True)
    if not found:
        raise _missing_error(AUTH_KEYS, f"want {_WANTED}", reader)
    if len(found) > 1:
        source = next(iter(found.values())).source
        raise ConfigError(f"{' and '.join(found)} are set in {source}; set one of them")
    ((name, setting),) = found.items()
    try:
        if name == AUTH_KEYS:
            file = None if setting.source in _NO_FILES else setting.source
            return GivenKeys(parse_keys(setting.text), setting.source, file)
        if name == AUTH_KEYS_FILE:
            _refuse_keys(setting.text, "the path of a file")
            path = os.path.expanduser(setting.text)
            try:
                text = read_text(path)
            except ConfigError as exc:
                raise ConfigError(f"the file {path} {exc}") from exc
            warn_of_writers(path, holds_keys=True)
            return GivenKeys(parse_keys(text), f"the file {path}", path)
        _refuse_keys(setting.text, "the ARN of a secret")  # AWS would record what it is asked for
        return GivenKeys(parse_keys(_read_secret(setting.text)), f"the secret {setting.text}")
    except ConfigError as exc:
        raise ConfigError(*(f"{name}: {fault}" for fault in exc.faults)) from exc


def _refuse_keys(text: str, wanted: str) -> None:
    if looks_like_keys(text):
        raise ConfigError(f"is a key itself, by its looks, and not {wanted}; set {AUTH_KEYS} to it instead")


def _read_secret(name: str) -> str:
    from emissary_lib.aws import client  # only who has such a setting has to load it

    try:
        with client("secretsmanager", name) as secrets:
            answer = secrets.get_secret_value(SecretId=name)
    except ModuleNotFoundError as exc:
        raise PackageError(
            f"{AUTH_KEYS_SECRET}: reading a secret needs the package {exc.name}, which is not installed: "
            "pip install 'emissary-lib[aws]'"
        ) from exc
    except OperationError as exc:
        raise ConfigError(f"the secret {name} cannot be read: {exc}") from exc
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise ConfigError(f"the secret {name} is binary; want the text {_WANTED}")
    return text


def read_path(reader: SettingsReader, name: str) -> str | None:
    """The path of a file that can be read; ``None`` if it is not set.

    Raises:
        ConfigError: There is no such file, or it may not be read.
    """
    setting = reader.find(name)
    if setting is None:
        return None
    path = os.path.expanduser(setting.text)
    try:
        read_text(path)
    except ConfigError as exc:
        raise ConfigError(f"{name}: the file {shown(path)} {exc}; name another, or unset {name}") from exc
    return path


def read_seconds(reader: SettingsReader, name: str, default: float, limits: tuple[float, float]) -> float:
    """A time, or its default.

    Raises:
        ConfigError: It is none, or not within the limits.
    """
    return _read_within(reader, name, default, limits, parse=float, kind="number of seconds")


def read_number(reader: SettingsReader, name: str, default: int, limits: tuple[int, int]) -> int:
    """A whole number, or its default.

    Raises:
        ConfigError: It is none, or not within the limits.
    """
    return _read_within(reader, name, default, limits, parse=_whole, kind="whole number")


def _read_within(
    reader: SettingsReader,
    name: str,
    default: _N,
    limits: tuple[_N, _N],
    *,
    parse: Callable[[str], _N],
    kind: str,
) -> _N:
    setting = reader.find(name)
    if setting is None:
        return default
    least, most = limits
    try:
        number = parse(setting.text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise ConfigError(f"{name}: {shown(setting.text)!r} is no {kind} from {least:g} to {most:g}")
    return number


def _whole(text: str) -> int:
    """A number of plain digits; int() takes much else. Raises :class:`ValueError`."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(text)
    return int(text)


def _missing_error(name: str, advice: str, reader: SettingsReader) -> ConfigError:
    return ConfigError(f"{name} {_NOT_SET}{reader.suggest(name)}; {advice}")
