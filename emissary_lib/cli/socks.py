"""``emissary socks``: a local SOCKS5 server that leads to every target, until somebody ends it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from emissary_lib.cli.dialling import add_dialer, begin, format_address, show_warnings
from emissary_lib.cli.forward import local_address, run_until_stopped
from emissary_lib.cli.output import complain
from emissary_lib.cli.settings import dialer_of
from emissary_lib.exit_status import DIALLING, Exit

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.listening import LocalAddress

SUMMARY: Final = "a local SOCKS5 server that leads to every target, until Ctrl-C"
DESCRIPTION: Final = """\
Listen on a local address for SOCKS5 (CONNECT, without authentication). Each connection becomes a tunnel of
its own to the target that its client names, if the allow-list has it. This is for servers that name other
servers, as replica sets and clusters do, by names that only the VPC knows: have the client send names on as
they are (socks5h:// in many programs). A target that is not reached is told as a SOCKS reply, and on standard
error. Whoever can connect to the address reaches every target, so by default it is an address of this machine
only. SIGINT or SIGTERM ends the command and its connections.

With --json there is one line for each event, as of emissary forward; the target of the first, ready, is null,
and a connection's is what its client has named.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary socks
  curl --proxy socks5h://127.0.0.1:1080 http://intranet.internal/
  mongosh 'mongodb://mongo-a.internal,mongo-b.internal/?replicaSet=rs0&proxyHost=127.0.0.1&proxyPort=1080'
"""
EXITS: Final = DIALLING | {Exit.PORT}

#: Where to listen unless told otherwise: at SOCKS's own port, for programs whose settings stay.
LISTEN: Final = ("127.0.0.1", 1080)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument(
        "--listen",
        type=_tcp_address,
        default=LISTEN,
        metavar="[HOST:]PORT",
        help=f"local address; port 0 takes a free one (default: {format_address(LISTEN)})",
    )
    add_dialer(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each event")


def run(args: argparse.Namespace) -> int:
    """Listen until a signal comes."""
    from emissary_lib.cli import report

    said = report.choose(sys.stdout, json_events=args.json, environ=os.environ)
    try:
        with show_warnings(sys.stderr, said.line), dialer_of(args) as dialer:
            server = dialer.socks(args.listen, args.timeout)
            said.watch(None, server)
            address = begin(server, args.listen)
            try:
                if not _is_loopback(address[0]):
                    complain(
                        f"warning: {format_address(address)} is open to other machines: whoever can connect "
                        "to it reaches every target on the allow-list; listen on 127.0.0.1 to prevent that"
                    )
                run_until_stopped([(None, address)], said)
                server.give_up_dialling()  # whoever asked us to end does not want to wait for that
            finally:
                server.close()
    finally:
        said.end()
    return Exit.OK


def _is_loopback(host: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _tcp_address(text: str) -> LocalAddress:
    if "/" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT; SOCKS clients take no path")
    return local_address(text)
