"""What reading the source of imports cannot tell, looked up by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Modules that import others by a name made up at run time -> those that ours come to. A module that does so
#: and is not named here fails the build.
AT_RUN_TIME: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_lambda_powertools.shared.lazy_import": (),  # the X-Ray SDK, which is not ours to have
    # A module for each type of record: those that are asked for, and that an answer to it may hold. dnspython
    # takes others for bytes that it does not know.
    "dns.rdata": (
        "dns.rdtypes.IN.A",
        "dns.rdtypes.IN.AAAA",
        "dns.rdtypes.ANY.CNAME",
        "dns.rdtypes.ANY.DNAME",
        "dns.rdtypes.ANY.NS",
        "dns.rdtypes.ANY.OPT",
        "dns.rdtypes.ANY.SOA",
    ),
    "emissary_lib": (),  # public names, for users of the library; no function uses them
}

#: Packages whose ``__init__`` does nothing but take names from its modules, for users who want them short: an
#: artifact has it empty. Ours name the modules, and would load all the others along with them: of Powertools
#: logger, tracer, jmespath and typing_extensions, three quarters of what it costs a start.
BARE: Final = frozenset(
    {"aws_lambda_powertools", "aws_lambda_powertools.logging", "aws_lambda_powertools.metrics"}
)

#: (Module, what it imports within a function): functions that ours never come to, or that bear its absence.
NEVER_CALLED: Final = frozenset(
    {
        # JSON of Pydantic models and the like; brings the whole of Powertools' event handlers.
        ("aws_lambda_powertools.shared.functions", "aws_lambda_powertools.event_handler.openapi.compat"),
        # Those who want asyncio, or DNS over QUIC.
        ("dns.asyncbackend", "dns._asyncio_backend"),
        ("dns.asyncbackend", "dns._trio_backend"),
        ("dns.asyncquery", "dns.asyncresolver"),
        ("dns.quic", "dns.quic._asyncio"),
        ("dns.quic", "dns.quic._common"),
        ("dns.quic", "dns.quic._sync"),
        ("dns.quic", "dns.quic._trio"),
        # Proxies that speak SOCKS, and the operating system's authorities: for whoever dials, not for Lambda.
        ("emissary_lib.transport.proxy", "python_socks"),
        ("emissary_lib.transport.proxy", "python_socks.sync"),
        ("emissary_lib.transport.trust", "truststore"),
        # What the extra of a dialer's has compiled: not there, it is done without.
        ("emissary_lib.protocol.wire.base64", "pybase64"),
        ("emissary_lib.protocol.wire.masking", "websockets.speedups"),
    }
)
