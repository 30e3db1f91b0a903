"""What a program that ``emissary exec`` runs finds in its environment: where its servers are, and no key."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Final

from emissary_lib.cli.service_url import LocalPort, ServiceUrl
from emissary_lib.client.config import KEY_SETTINGS
from emissary_lib.client.settings import ENV_FILE
from emissary_lib.protocol.targets.allow_list import Target

#: Address of the first target.
HOST: Final = "EMISSARY_HOST"
PORT: Final = "EMISSARY_PORT"

#: Ours alone: what holds the key, or tells where it is.
SECRETS: Final = (*KEY_SETTINGS, ENV_FILE)

DATABASE_URL: Final = "DATABASE_URL"
REDIS_URL: Final = "REDIS_URL"


class Service(enum.Enum):
    """A kind of server whose clients look for its address in variables of their own."""

    POSTGRES = "postgres"
    MYSQL = "mysql"
    REDIS = "redis"


#: What a target is, unless one is told, by its port.
SERVICES: Final = {5432: Service.POSTGRES, 3306: Service.MYSQL, 6379: Service.REDIS}

#: The variables of each, for ``--help`` and messages.
VARIABLES: Final = {
    Service.POSTGRES: ("PGHOST", "PGHOSTADDR", "PGPORT"),
    Service.MYSQL: ("MYSQL_HOST", "MYSQL_TCP_PORT"),
    Service.REDIS: (REDIS_URL,),
}


def service_of(target: Target) -> Service | None:
    """What a target is, by its port; None if that says nothing."""
    return SERVICES.get(target.port)


def program_environment(
    environ: Mapping[str, str],
    ports: Sequence[LocalPort],
    services: Sequence[Service | None],
    *,
    for_clients: bool = True,
) -> dict[str, str]:
    """The environment of a program that is to connect to local ports.

    Args:
        environ: Our own.
        ports: The ports, in the order of the command line; at least one.
        services: What each leads to; the first of each kind is the one whose clients find it.
        for_clients: Set what client libraries read, too, and rewrite URLs.

    Returns:
        ``environ`` without :data:`SECRETS`, and with the addresses.
    """
    env = {name: value for name, value in environ.items() if name not in SECRETS}
    if for_clients:
        rewritten = {
            name: url
            for name in (DATABASE_URL, REDIS_URL)
            if (url := _through(env.get(name, ""), ports, env))
        }
        env.update(rewritten)
        if Service.POSTGRES in services:
            _set_postgres(env, ports[services.index(Service.POSTGRES)])
        if Service.MYSQL in services:
            _set_mysql(env, ports[services.index(Service.MYSQL)])
        if Service.REDIS in services and REDIS_URL not in rewritten:
            # Not the password and the database of another server.
            port = ports[services.index(Service.REDIS)]
            env[REDIS_URL] = f"redis://{port.host}:{port.port}"
    env[HOST], env[PORT] = ports[0].host, str(ports[0].port)
    for number, port in reversed(list(enumerate(ports, start=1))):  # of two that share a name, the first
        for host_variable, port_variable in (numbered(number), named(port.target)):
            env[host_variable], env[port_variable] = port.host, str(port.port)
    return env


def numbered(number: int) -> tuple[str, str]:
    """The variables of the target with this number, from 1."""
    return f"{HOST}_{number}", f"{PORT}_{number}"


def named(target: Target) -> tuple[str, str]:
    """The variables of a target, by its name.

    Example:
        >>> named(Target.parse("db-1.internal:5432"))
        ('EMISSARY_DB_1_INTERNAL_5432_HOST', 'EMISSARY_DB_1_INTERNAL_5432_PORT')
    """
    name = re.sub("[^A-Z0-9]", "_", f"{target.host}_{target.port}".upper())
    return f"EMISSARY_{name}_HOST", f"EMISSARY_{name}_PORT"


def _through(url: str, ports: Sequence[LocalPort], env: Mapping[str, str]) -> str | None:
    """The URL through local ports; None if none of them leads to where it does."""
    try:
        parsed = ServiceUrl(url)
    except ValueError:
        return None
    mode = parsed.parameter("sslmode") or env.get("PGSSLMODE", "")
    authorities = parsed.parameter("sslrootcert") or env.get("PGSSLROOTCERT", "")
    # With the system's authorities, libpq verifies the name unless it is told otherwise.
    verified = mode == "verify-full" or (not mode and authorities == "system")
    return parsed.through(ports, keep_name=verified)


def _set_postgres(env: dict[str, str], port: LocalPort) -> None:
    """Have libpq connect to the address, and verify the name: ``sslmode=verify-full`` works as it is.

    ``PGHOSTADDR`` would also lead it away from any other server that it is told of. Where the environment
    tells it of one, the address stands in for the name.
    """
    env["PGPORT"] = str(port.port)
    if env.get("PGSERVICE") or _names_another_server(env.get(DATABASE_URL, "")):
        env["PGHOST"] = port.host
        env.pop("PGHOSTADDR", None)
    else:
        env["PGHOST"], env["PGHOSTADDR"] = port.target.host, port.host


def _names_another_server(url: str) -> bool:
    try:
        return ServiceUrl(url).misled_by_hostaddr
    except ValueError:
        return False


def _set_mysql(env: dict[str, str], port: LocalPort) -> None:
    """An address, because ``localhost`` means a Unix socket to MySQL's clients."""
    env["MYSQL_HOST"], env["MYSQL_TCP_PORT"] = port.host, str(port.port)
    if env.get("MYSQL_PORT", "").isdecimal():  # no client reads it, but applications do, beside MYSQL_HOST
        env["MYSQL_PORT"] = str(port.port)
