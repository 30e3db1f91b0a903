"""``emissary keys``: the shared keys in Secrets Manager."""

from __future__ import annotations

import json
import time
from typing import TextIO

from emissary_lib.operate.clients import client
from emissary_lib.operate.keys import KeySecret, StoredKey, settings_line, shown_time
from emissary_lib.protocol.wire.base64 import encode_unpadded

#: How long functions that are running may still take a key that was retired, in seconds
#: (``functions.common.adapters.keys``, MAX_AGE).
ACCEPTED_AFTER = 300


def new(secret: str, key_id: int | None, *, json_line: bool, out: TextIO) -> None:
    """Add a key and print it, this once.

    Raises:
        OperationError: AWS refused, or the id cannot be given.
    """
    with client("secretsmanager", secret) as secrets:
        key = KeySecret(secrets, secret).new(key_id)
    if json_line:
        line = json.dumps({"kid": key.key_id, "data": encode_unpadded(key.secret)})
    else:
        line = f"# Key {key.key_id}: accepted from now on, shown only now.\n{settings_line(key)}"
    print(line, file=out, flush=True)


def list_keys(secret: str, *, json_line: bool, out: TextIO) -> None:
    """Print ids and ages; never a secret.

    Raises:
        OperationError: AWS refused, or the secret holds no keys.
    """
    with client("secretsmanager", secret) as secrets:
        keys = KeySecret(secrets, secret).list()
    if json_line:
        print(json.dumps([_facts(each) for each in keys]), file=out, flush=True)
        return
    print(f"{'key':<12}{'created':<24}age", file=out)
    for each in keys:
        facts = _facts(each)
        print(f"{each.key_id:<12}{facts['created'] or 'unknown':<24}{_age(facts['age_s'])}", file=out)
    out.flush()


def retire(secret: str, key_id: int, *, json_line: bool, out: TextIO) -> None:
    """Take a key away.

    Raises:
        OperationError: AWS refused, there is no such key, or it is the last one.
    """
    with client("secretsmanager", secret) as secrets:
        left = KeySecret(secrets, secret).retire(key_id)
    ids = [each.key_id for each in left]
    if json_line:
        print(json.dumps({"retired": key_id, "keys": ids}), file=out, flush=True)
        return
    print(
        f"Key {key_id} is retired: no new session after {ACCEPTED_AFTER} s at most. Sessions that it opened "
        f"go on (emissary sessions kill ends them). Keys left: {', '.join(map(str, ids))}.",
        file=out,
        flush=True,
    )


def _facts(each: StoredKey) -> dict[str, int | str | None]:
    if each.created is None:
        return {"kid": each.key_id, "created": None, "age_s": None}
    age = max(0, int(time.time() - each.created))
    return {"kid": each.key_id, "created": shown_time(each.created), "age_s": age}


def _age(seconds: object) -> str:
    if not isinstance(seconds, int):
        return "unknown"
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
