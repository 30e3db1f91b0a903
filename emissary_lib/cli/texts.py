"""The prose of ``--help``: what each command does, and examples to paste."""

from __future__ import annotations

from typing import Final, NamedTuple


class Text(NamedTuple):
    """One command's prose."""

    summary: str
    description: str
    examples: str


EXEC: Final = Text(
    "run a program with a local port that leads to a target",
    """\
Run a program that connects to the target through a local port, which is there for as long as the program
runs. {host} and {port} in its arguments, and EMISSARY_HOST and EMISSARY_PORT in its environment, say where.
Each connection it makes is a tunnel of its own; one that fails is reported on standard error. Signals are
passed on to the program, and its exit status is passed back.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
""",
    """\
examples:
  emissary exec db.internal:5432 -- psql -h {host} -p {port} -U app app
  emissary exec db.internal:5432 -- alembic -x host={host} -x port={port} upgrade head
  emissary exec --check db.internal:3306 -- sh -c 'mysql -h $EMISSARY_HOST -P $EMISSARY_PORT -u app app'
""",
)

FORWARD: Final = Text(
    "a local port that leads to a target, until Ctrl-C",
    """\
Listen on a local address; each connection to it is a tunnel of its own to the target. One that fails is
reported on standard error, and the others go on. Whoever can connect to the address reaches the target, so
it is one of this machine only unless told otherwise. SIGINT or SIGTERM ends it, and the connections with it.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
""",
    """\
examples:
  emissary forward db.internal:5432 --listen 127.0.0.1:5433
  emissary forward db.internal:5432 --check --json
""",
)

DOCTOR: Final = Text(
    "find out where the way to a target breaks, and what to do",
    """\
Walk the way to a target rung by rung: settings, the gateway's name, TCP, TLS, clocks, $connect, $default,
the bridge's version, proof and health, and with a TARGET the allow-list, the relay, the target's name and
port in the VPC, the round trip, and how the target greets. Say at each how it fares and how long it took, and
at the first that breaks what to do; the exit status is that rung's. Nothing is logged in to or changed.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
""",
    """\
examples:
  emissary doctor
  emissary doctor db.internal:5432
  emissary doctor cache.internal:7000 --greet redis --json
""",
)

LOCAL: Final = Text(
    "run the stack on this machine",
    """\
Run the whole stack of a SAM template on this machine: API Gateway's WebSocket API, Lambda, DynamoDB, each as
strict as AWS. It prints the settings to dial with, and at the end what AWS would have billed. Linux only.
""",
    """\
examples:
  emissary local --target 127.0.0.1:5432
  emissary local --target 127.0.0.1:5432 --seed 7 --fault reorder=0.3 --fault cut_every=30
  emissary local --target 127.0.0.1:5432 --time-scale 0.01 --json
""",
)

DEMO: Final = Text(
    "migrate a real database and verify it",
    """\
Start the local cloud and a PostgreSQL, apply an Alembic history through a tunnel, read it back, COPY 20 MB
each way, and verify all of it on the database directly, and that no policy of the template was too narrow for
what the functions asked of AWS. Takes about ten seconds. Linux only.
""",
    """\
examples:
  emissary demo
  emissary demo --template deploy/template.yaml
""",
)

BENCH: Final = Text(
    "measure, as one line of JSON",
    """\
Measure dial time, round trip, throughput each way and the CPU time of idle tunnels through the local cloud,
and the same over a direct connection; and the longest pause of a tunnel whose WebSockets are cut. Prints one
line of JSON on standard output; progress goes to standard error. Takes about two minutes. Linux only.
""",
    """\
examples:
  emissary bench
  emissary bench > before.json
""",
)

KEYS: Final = Text(
    "the shared keys in Secrets Manager: new, list, retire",
    """\
Rotate the shared keys without a moment in which none is valid: make a new one, which is accepted at once
beside the others; give it to the platform; retire the old one when nobody dials with it any more. `new`
prints the key this once; nothing else ever shows one. What two operators do at the same time is not lost.

The secret is KeySecretArn of the stack's outputs. The operator needs secretsmanager:GetSecretValue and, to
change it, secretsmanager:PutSecretValue on it.
""",
    """\
examples:
  emissary keys list --secret arn:aws:secretsmanager:eu-west-1:111122223333:secret:emissary-keys-AbCdEf
  emissary keys new --secret emissary-keys
  emissary keys retire 1 --secret emissary-keys --json
""",
)

KEYS_NEW: Final = Text(
    "add a fresh key and print it, this once",
    """\
Add a random key to those in the secret, and print it, this once, as the platform's line EMISSARY_AUTH_KEYS;
with --json as one object of it, with kid and data. It is accepted at once beside the others. If it is lost on
its way, retire it and make another.

The operator needs secretsmanager:GetSecretValue and secretsmanager:PutSecretValue on the secret.
""",
    """\
examples:
  emissary keys new --secret emissary-keys
  emissary keys new --secret emissary-keys --kid 7
  emissary keys new --secret emissary-keys --json
""",
)

KEYS_LIST: Final = Text(
    "ids and ages; no secret",
    """\
Show the id of each key that is valid, when it was made and how old it is; never a key itself. A key whose age
is unknown was not made by this command.

The operator needs secretsmanager:GetSecretValue on the secret.
""",
    """\
examples:
  emissary keys list --secret emissary-keys
  emissary keys list --secret emissary-keys --json
""",
)

KEYS_RETIRE: Final = Text(
    "take a key away, unless it is the last one",
    """\
Take a key out of the secret. Within 5 minutes no function accepts it any more; sessions that it opened go on,
but cannot resume after a lost connection (`emissary sessions kill --key` ends them). The last key stays,
because nobody could dial without it: make another first.

The operator needs secretsmanager:GetSecretValue and secretsmanager:PutSecretValue on the secret.
""",
    """\
examples:
  emissary keys retire 1 --secret emissary-keys
  emissary keys retire 1 --secret emissary-keys --json
""",
)

SESSIONS: Final = Text(
    "who is in, who was, to where; end a session",
    """\
`list` shows the sessions of the last week that named a target, the newest first: state, key, the address they
came from, target, bytes each way, why they ended. "lost" is one whose time is up though nobody has said how
it ended. `kill` ends sessions, by their id or its beginning, or all of a key: it is recorded at once, and
both sides are told within a second; the relay then resets its connection to the target.

The table is TableName of the stack's outputs, the URL its WebSocketUrl (default: EMISSARY_URL, in the
environment or in .env). The operator needs dynamodb:Scan, and to kill, dynamodb:GetItem and
dynamodb:UpdateItem on the table and execute-api:ManageConnections on the API.
""",
    """\
examples:
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --alive --json
  emissary sessions kill 8f14e45fceea167a --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions kill --key 1 --table emissary-SessionTable-1ABCDEFGHIJK
""",
)

SESSIONS_LIST: Final = Text(
    "those alive, and those of the last week",
    """\
Show the sessions that named a target, the newest first: those alive, and those that ended within the last
week. State is opening, launched, open, ended, or lost: its time is up though nobody has said how it ended.
Times are UTC. The whole table is read, consistently.

The operator needs dynamodb:Scan on the table.
""",
    """\
examples:
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --alive
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --all --json
""",
)

SESSIONS_KILL: Final = Text(
    "end sessions, and tell both sides",
    """\
End sessions, each by its id or the beginning of it, or all that are alive of a key, or both. The end is
recorded at once, and both sides are told within a second; a side that cannot be told is cut off. What becomes
of each session is printed, and whatever goes wrong with one keeps it from none of the others. Retire a key
first: its holder can dial again.

The status is 0 if all were killed; of those of a --key, some may have ended by themselves meanwhile. It is 14
if a SESSION had ended already, if AWS refused something for one of them, or if a side could be neither told
nor cut off; those printed as killed are killed all the same. It is 14, too, and nobody is killed, if a
SESSION is not there or could be several, or if there is nobody to kill.

The operator needs dynamodb:Scan, dynamodb:GetItem and dynamodb:UpdateItem on the table, and
execute-api:ManageConnections on the API.
""",
    """\
examples:
  emissary sessions kill 8f14e45fceea167a --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions kill 8f14e45f c9f0f895 --table emissary-SessionTable-1ABCDEFGHIJK --json
  emissary sessions kill --key 1 --table emissary-SessionTable-1ABCDEFGHIJK --url wss://db.example/emissary
""",
)

#: By the name of the command; of an action, with its command before it.
ALL: Final[dict[str, Text]] = {
    "exec": EXEC,
    "forward": FORWARD,
    "doctor": DOCTOR,
    "local": LOCAL,
    "demo": DEMO,
    "bench": BENCH,
    "keys": KEYS,
    "keys new": KEYS_NEW,
    "keys list": KEYS_LIST,
    "keys retire": KEYS_RETIRE,
    "sessions": SESSIONS,
    "sessions list": SESSIONS_LIST,
    "sessions kill": SESSIONS_KILL,
}
