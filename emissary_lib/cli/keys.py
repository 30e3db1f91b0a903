"""``emissary keys``: the shared keys in Secrets Manager."""

from __future__ import annotations

import argparse
import json
import time
from typing import Final, TextIO

from emissary_lib.aws import client
from emissary_lib.cli.command import add_parser, key_id
from emissary_lib.cli.output import standard_output
from emissary_lib.exit_status import Exit
from emissary_lib.operate.keys import KeySecret, StoredKey, format_time, settings_line
from emissary_lib.protocol.wire.base64 import encode_unpadded

SUMMARY: Final = "the shared keys in Secrets Manager: new, list, retire"
DESCRIPTION: Final = """\
Rotate the shared keys without a moment in which none is valid: make a new one, which is accepted at once
beside the others; give it to the platform; retire the old one when nobody dials with it any more. `new`
prints the key once; it cannot be shown again. Changes that two operators make at the same time are all kept.

The secret is KeySecretArn of the stack's outputs. The operator needs secretsmanager:GetSecretValue and, to
change it, secretsmanager:PutSecretValue on it.
"""
EPILOG: Final = """\
examples:
  emissary keys list --secret arn:aws:secretsmanager:eu-west-1:111122223333:secret:emissary-keys-AbCdEf
  emissary keys new --secret emissary-keys
  emissary keys retire 1 --secret emissary-keys --json
"""
EXITS: Final = frozenset({Exit.NOT_DONE})

_NEW_DESCRIPTION: Final = """\
Add a random key to those in the secret, and print it as the line EMISSARY_AUTH_KEYS of the platform's
settings; with --json as one object, with kid and data. It is printed once and cannot be shown again. It is
accepted at once beside the others. If it is lost, retire it and make another.

The operator needs secretsmanager:GetSecretValue and secretsmanager:PutSecretValue on the secret.
"""
_NEW_EPILOG: Final = """\
examples:
  emissary keys new --secret emissary-keys
  emissary keys new --secret emissary-keys --kid 7
  emissary keys new --secret emissary-keys --json
"""

_LIST_DESCRIPTION: Final = """\
Show the id of each valid key, when it was made and how old it is; never a key itself. A key whose age is
unknown was not made by this command.

The operator needs secretsmanager:GetSecretValue on the secret.
"""
_LIST_EPILOG: Final = """\
examples:
  emissary keys list --secret emissary-keys
  emissary keys list --secret emissary-keys --json
"""

_RETIRE_DESCRIPTION: Final = """\
Take a key out of the secret. Functions cache the secret for up to 5 minutes; then none accepts the key any
more. Sessions that it opened go on, but cannot resume after a lost connection (`emissary sessions kill --key`
ends them). The last key cannot be retired, because nobody could dial without it: make another first.

The operator needs secretsmanager:GetSecretValue and secretsmanager:PutSecretValue on the secret.
"""
_RETIRE_EPILOG: Final = """\
examples:
  emissary keys retire 1 --secret emissary-keys
  emissary keys retire 1 --secret emissary-keys --json
"""

#: How long functions that are running may still take a key that was retired, in seconds
#: (``functions.common.adapters.keys``, MAX_AGE).
ACCEPTED_AFTER: Final = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its actions and their options."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    new = add_parser(
        actions,
        "new",
        summary="add a fresh key and print it, once",
        description=_NEW_DESCRIPTION,
        epilog=_NEW_EPILOG,
        exits=EXITS,
    )
    new.add_argument("--kid", type=key_id, metavar="ID", help="its id (default: the next above the highest)")
    listing = add_parser(
        actions,
        "list",
        summary="ids and ages; no secret",
        description=_LIST_DESCRIPTION,
        epilog=_LIST_EPILOG,
        exits=EXITS,
    )
    retiring = add_parser(
        actions,
        "retire",
        summary="take a key away, unless it is the last one",
        description=_RETIRE_DESCRIPTION,
        epilog=_RETIRE_EPILOG,
        exits=EXITS,
    )
    retiring.add_argument("kid", type=key_id, metavar="ID", help="the key's id")
    for action in (new, listing, retiring):
        action.add_argument("--secret", required=True, metavar="ARN", help="ARN or name of the keys' secret")
        action.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    if args.action == "new":
        new(args.secret, args.kid, json_line=args.json, out=standard_output())
    elif args.action == "retire":
        retire(args.secret, args.kid, json_line=args.json, out=standard_output())
    else:
        list_keys(args.secret, json_line=args.json, out=standard_output())
    return Exit.OK


def new(secret: str, key_id: int | None, *, json_line: bool, out: TextIO) -> None:
    """Add a key and print it, once.

    Raises:
        OperationError: AWS refused, or the id cannot be given.
    """
    with client("secretsmanager", secret) as secrets:
        key = KeySecret(secrets, secret).new(key_id)
    if json_line:
        line = json.dumps({"kid": key.key_id, "data": encode_unpadded(key.secret)})
    else:
        line = f"# Key {key.key_id}: accepted from now on; it cannot be shown again.\n{settings_line(key)}"
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
    return {"kid": each.key_id, "created": format_time(each.created), "age_s": age}


def _age(seconds: object) -> str:
    if not isinstance(seconds, int):
        return "unknown"
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
