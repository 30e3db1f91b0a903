"""Migrates databases of its own, one after the other, in a process of its own: Alembic's context is global.

``python -m tests.soak.migration``: the settings come as one line of JSON on standard input, the tally goes as
one line to standard output when standard input ends.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import sys
import threading
from collections.abc import Mapping
from typing import Any

import psycopg

from emissary_lib import Dialer
from emissary_lib.demo import migrate, verify
from emissary_lib.demo.postgres import Postgres
from emissary_lib.protocol.keepalive import KeepaliveTimes
from emissary_lib.protocol.keys import Key
from tests.soak.leaks import peak_memory, tunnel_threads
from tests.soak.tally import Mismatch, Tally
from tests.soak.work import World, attempt


def main() -> None:
    """Work until standard input ends; then finish what has begun."""
    logging.disable(logging.WARNING)
    settings = json.loads(sys.stdin.readline())
    tally, stop = Tally(), threading.Event()
    postgres = Postgres(**settings["postgres"])
    with Dialer(
        settings["url"],
        Key(settings["key_id"], bytes.fromhex(settings["secret"])),
        keepalive=KeepaliveTimes(**settings["keepalive"]),
    ) as dialer:
        world = World(dialer, (postgres.host, postgres.port), postgres, tally, stop, {})
        threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
        chance = random.Random(settings["seed"])
        while not stop.is_set():
            if not attempt(world, "migration", _migrate, chance):
                stop.wait(0.2)
    for thread in threading.enumerate():
        if thread.name.startswith("emissary-"):
            thread.join(10.0)
    said = {**tally.as_json(), "threads": tunnel_threads(), "peak_memory": peak_memory()}
    sys.stdout.write(json.dumps(said) + "\n")


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _migrate(world: World, chance: random.Random) -> None:
    """The whole history in a fresh database, and then a look at the database itself."""
    name = f"soak_{chance.randrange(1 << 60):x}"
    own = dataclasses.replace(world.postgres, database=name)
    _directly(world.postgres, f"CREATE DATABASE {name}")
    try:
        engine = migrate.engine(own, lambda: world.dial((own.host, own.port)))
        try:
            migrate.upgrade(engine, lambda revision: None)
        finally:
            engine.dispose()
        with psycopg.connect(**own.direct, autocommit=True) as connection:
            wrong = [check for check in verify.check_history(connection) if not check.ok]
        if wrong:
            raise Mismatch(f"a migration that went well left {wrong}")
        world.tally.moved(100_000)
    finally:
        _directly(world.postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _directly(postgres: Postgres, statement: str) -> None:
    with psycopg.connect(**postgres.direct, autocommit=True) as connection:
        connection.execute(statement.encode())


def settings_line(url: str, key: Key, postgres: Postgres, keepalive: KeepaliveTimes, seed: str) -> str:
    """What :func:`main` reads."""
    values: Mapping[str, Any] = {
        "url": url,
        "key_id": key.key_id,
        "secret": key.secret.hex(),
        "postgres": dataclasses.asdict(postgres),
        "keepalive": dataclasses.asdict(keepalive),
        "seed": seed,
    }
    return json.dumps(values) + "\n"


if __name__ == "__main__":
    main()
