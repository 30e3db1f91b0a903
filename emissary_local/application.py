"""What the local cloud has to know about one application and cannot read in its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emissary_local.template.secrets import SecretSpec


class Application:
    """Knows nothing, which is enough for most templates; a subclass overrides what its application needs.

    Attributes:
        parameters: Values of template parameters; those that the template does not declare are left out.
        url_variables: Names of the functions' environment variables that hold the WebSocket API's URL; the
            template can only make the one on AWS.
        classify: ``module:function`` of a :data:`~emissary_local.gateway.client_role.Classify`, which is
            imported in the cloud process; empty: all clients are alike.
    """

    parameters: Mapping[str, str] = {}
    url_variables: tuple[str, ...] = ()
    classify: str = ""

    def passwords(self, secrets: Mapping[str, SecretSpec]) -> dict[str, str]:
        """What secrets that are generated on AWS get here instead of a random password.

        Args:
            secrets: The template's, by logical id.

        Returns:
            By logical id; random ones for those that are not in it.

        Raises:
            TemplateError: If a secret is not as the application needs it.
        """
        return {}

    def facts(self) -> dict[str, Any]:
        """What ``emissary local --json`` tells when it is ready, beside ``url`` and ``pid``."""
        return {}

    def client_variables(self, url: str) -> dict[str, str]:
        """Environment variables that the application's clients need."""
        return {}

    def notes(self) -> list[str]:
        """Lines that ``emissary local`` prints when it is ready."""
        return []
