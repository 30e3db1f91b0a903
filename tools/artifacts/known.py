"""What reading the source of imports cannot tell, looked up by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Modules that import others by a name made up at run time -> the packages those are in. A module that does
#: so and is not named here fails the build.
AT_RUN_TIME: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_lambda_powertools.shared.lazy_import": (),  # the X-Ray SDK, which is not ours to have
    "dns.rdata": ("dns.rdtypes",),  # a module for each type of record
    "emissary_lib": (),  # public names, for users of the library; no function uses them
}

#: (Module, what it imports within a function): functions that ours never come to, or that go on without it.
NEVER_CALLED: Final = frozenset(
    {
        # JSON of Pydantic models and the like; brings the whole of Powertools' event handlers.
        ("aws_lambda_powertools.shared.functions", "aws_lambda_powertools.event_handler.openapi.compat"),
        # Those who want asyncio, or DNS over QUIC.
        ("dns.asyncbackend", "dns._asyncio_backend"),
        ("dns.asyncbackend", "dns._trio_backend"),
        ("dns.quic", "dns.quic._asyncio"),
        ("dns.quic", "dns.quic._trio"),
        # Proxies that speak SOCKS, and the operating system's authorities: for whoever dials, not for Lambda.
        ("emissary_lib.transport.proxy", "python_socks"),
        ("emissary_lib.transport.proxy", "python_socks.sync"),
        ("emissary_lib.transport.trust", "truststore"),
        # Compiled, so that one build would not be right for both processors; without them Python's own are
        # used.
        ("emissary_lib.protocol.wire.base64", "pybase64"),
        ("emissary_lib.transport.masking", "websockets.speedups"),
    }
)
