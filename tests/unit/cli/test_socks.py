"""A local SOCKS5 server as a command: ready or failed at once, real clients through it, ended by a signal."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.client.socks import SocksServer
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.patience import HANG
from tests.helpers.socks_client import SUCCEEDED, ask
from tests.helpers.vpc import Vpc

ROOT = pathlib.Path(__file__).resolve().parents[3]
CURL = shutil.which("curl")


@contextlib.contextmanager
def command(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}
    with subprocess.Popen(
        [sys.executable, "-m", "emissary_lib", "socks", *arguments],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        yield running


def test_a_line_of_json_tells_that_it_is_ready_clients_are_told_of_failures_and_ctrl_c_ends_it() -> None:
    with Bridge(Behaviour(script=echo)) as bridge, command(bridge.url, "--listen", "0", "--json") as running:
        assert running.stdout
        ready = json.loads(running.stdout.readline())
        assert (ready["host"], ready["pid"], ready["target"]) == ("127.0.0.1", running.pid, None)
        sock, reply = ask((ready["host"], ready["port"]), TARGET)
        with sock:
            assert reply == SUCCEEDED
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            opened = json.loads(running.stdout.readline())
            assert (opened["event"], opened["target"]) == ("opened", TARGET)
            other, reply = ask((ready["host"], ready["port"]), "elsewhere.internal:80")
            with other:
                assert reply[1] == 2
            failed = json.loads(running.stdout.readline())
            assert (failed["event"], failed["target"]) == ("failed", "elsewhere.internal:80")
            running.send_signal(signal.SIGINT)
            _out, err = running.communicate(timeout=HANG)
        assert running.returncode == Exit.OK
        assert err.startswith("emissary: a forwarded connection failed: cannot reach elsewhere.internal:80: ")
        assert len(err.splitlines()) == 1


def test_an_address_that_is_open_to_others_is_a_warning() -> None:
    with command("ws://127.0.0.1:1/s", "--listen", "0.0.0.0:0") as running:
        assert running.stdout
        line = running.stdout.readline()
        assert line.startswith("Listening on 0.0.0.0:")
        assert line.endswith(" (SOCKS5), which leads to every target on the allow-list. Ctrl-C ends it.\n")
        running.send_signal(signal.SIGTERM)
        _out, err = running.communicate(timeout=HANG)
    assert err.startswith("emissary: warning: 0.0.0.0:")
    assert "whoever can connect to it reaches every target on the allow-list" in err


def test_a_busy_port_has_its_status(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMISSARY_URL", "ws://127.0.0.1:1/s")
    monkeypatch.setenv("EMISSARY_AUTH_KEYS", format_keys([KEY]))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.main(["socks", "--listen", where]) == Exit.PORT
    assert f"cannot listen on {where}: Address already in use" in capfd.readouterr().err


def test_a_path_is_no_address_of_a_socks_server(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["socks", "--listen", "/tmp/socks"])
    assert "'/tmp/socks' is no HOST:PORT" in capfd.readouterr().err


class Intranet(http.server.BaseHTTPRequestHandler):
    """Answers with the name it was asked by."""

    def do_GET(self) -> None:
        body = f"this is {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def intranet() -> Iterator[tuple[str, int]]:
    """A web server; its address on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Intranet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join(HANG)


@pytest.fixture
def proxy(intranet: tuple[str, int]) -> Iterator[tuple[str, int]]:
    """A SOCKS5 server into a VPC that has the web server by a name of its own."""
    with SocksServer(("127.0.0.1", 0), Vpc({"intranet.internal:80": intranet}).dial) as address:
        yield address


def curl(proxy: tuple[str, int], how: str, url: str) -> subprocess.CompletedProcess[str]:
    assert CURL
    return subprocess.run(
        [CURL, "--disable", "--silent", "--show-error", how, f"{proxy[0]}:{proxy[1]}", url],
        env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.skipif(CURL is None, reason="no curl is installed")
def test_curl_reaches_a_name_that_only_the_vpc_knows(proxy: tuple[str, int]) -> None:
    done = curl(proxy, "--socks5-hostname", "http://intranet.internal/")
    assert (done.returncode, done.stdout, done.stderr) == (0, "this is intranet.internal", "")


@pytest.mark.skipif(CURL is None, reason="no curl is installed")
def test_curl_is_told_why_not(proxy: tuple[str, int]) -> None:
    done = curl(proxy, "--socks5-hostname", "http://elsewhere.internal/")
    assert done.returncode == 97  # CURLE_PROXY
    assert "(2)" in done.stderr, "connection not allowed by ruleset"


@pytest.mark.skipif(CURL is None, reason="no curl is installed")
@pytest.mark.parametrize("how", ["--proxy", "--socks4a"])
def test_curl_set_to_another_kind_of_proxy_fails_at_once(proxy: tuple[str, int], how: str) -> None:
    done = curl(proxy, how, "http://intranet.internal/")
    if how == "--socks4a":
        assert done.returncode == 97
    else:
        assert "This is a SOCKS5 server, not an HTTP proxy" in done.stdout


def test_pysocks_reaches_a_name_that_only_the_vpc_knows(proxy: tuple[str, int]) -> None:
    socks = pytest.importorskip("socks", reason="PySocks is not installed")
    with socks.create_connection(
        ("intranet.internal", 80), HANG, proxy_type=socks.SOCKS5, proxy_addr=proxy[0], proxy_port=proxy[1]
    ) as sock:
        assert "this is intranet.internal" in get(sock)
    with pytest.raises(socks.ProxyError, match="0x02"):
        socks.create_connection(
            ("elsewhere", 80), HANG, proxy_type=socks.SOCKS5, proxy_addr=proxy[0], proxy_port=proxy[1]
        )


def test_python_socks_reaches_a_name_that_only_the_vpc_knows(proxy: tuple[str, int]) -> None:
    python_socks = pytest.importorskip("python_socks.sync", reason="python-socks is not installed")
    through = python_socks.Proxy.from_url(f"socks5://{proxy[0]}:{proxy[1]}", rdns=True)
    with through.connect("intranet.internal", 80, HANG) as sock:
        assert "this is intranet.internal" in get(sock)


def get(sock: socket.socket) -> str:
    sock.sendall(b"GET / HTTP/1.0\r\nHost: intranet.internal\r\n\r\n")
    with sock.makefile("rb") as stream:
        return stream.read().decode()
