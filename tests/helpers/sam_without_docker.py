"""``sam local invoke`` without Docker: SAM's own reading of the template, and AWS's emulator as container.

What it takes from aws-sam-cli is what decides how a function runs: which variables and which code it gets.
Run as a program::

    python tests/helpers/sam_without_docker.py local invoke NAME --template FILE --event FILE --region REGION
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from typing import Any

from samcli.commands.local.lib.local_lambda import LocalLambdaRunner  # type: ignore[import-untyped]
from samcli.lib.providers.sam_function_provider import SamFunctionProvider  # type: ignore[import-untyped]
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider  # type: ignore[import-untyped]

from emissary_local.lambda_.runtime_site import make_runtime_site
from tools.replay.emulator import Emulator, emulator_binary


def environment_of(template: str, name: str, region: str) -> tuple[Any, dict[str, str]]:
    """A function as SAM's provider has it, and all variables that its container would get."""
    stacks, _ = SamLocalStackProvider.get_stacks(template_file=template)
    provider = SamFunctionProvider(stacks)
    runner = LocalLambdaRunner(
        None, provider, str(pathlib.Path(template).parent), template, aws_region=region
    )
    function = provider.get(name)
    return function, runner._make_env_vars(function).resolve()


def main() -> None:
    """Invoke one function with one event, and print its answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs=2)
    parser.add_argument("name")
    for option in ("--template", "--event", "--region"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    assert given.command == ["local", "invoke"]
    function, variables = environment_of(given.template, given.name, given.region)
    event = json.loads(pathlib.Path(given.event).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        site, log = make_runtime_site(folder / "runtime"), folder / "log"
        artifact = pathlib.Path(function.codeuri)
        with Emulator(emulator_binary(), artifact, function.handler, variables, site, log) as emulator:
            answer = emulator.invoke(event)
            sys.stderr.write(emulator.output())
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
