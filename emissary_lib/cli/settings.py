"""Where a command's settings come from, as its arguments say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.dialer import Dialer
    from emissary_lib.client.settings import SettingsReader


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the option of every command that reads settings."""
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="where to look for settings that are not in the environment, before .env "
        "(default: what EMISSARY_ENV_FILE names)",
    )


def settings_reader(args: argparse.Namespace) -> SettingsReader:
    """The reader of a command's settings; see :func:`add_settings`."""
    from emissary_lib.client.settings import SettingsReader

    return SettingsReader(env_file=args.env_file)


def dialer_of(args: argparse.Namespace) -> Dialer:
    """A dialer with a command's settings.

    Raises:
        ConfigError: Names every setting that is missing or wrong.
    """
    from emissary_lib.client.config import ClientConfig
    from emissary_lib.client.dialer import Dialer

    return Dialer.from_config(ClientConfig.read(settings_reader(args)))
