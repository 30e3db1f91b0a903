"""The WebSocket API of a stack: its stage, its routes, what is behind them, and who is asked before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template import names
from emissary_local.template.functions import function_name
from emissary_local.template.patterns import ArnPattern, Wildcard
from emissary_local.template.resources import (
    API,
    AUTHORIZER,
    DEPLOYMENT,
    INTEGRATION,
    INTEGRATION_RESPONSE,
    PERMISSION,
    ROUTE,
    ROUTE_RESPONSE,
    STAGE,
)
from emissary_local.template.selection import RouteSelection
from emissary_local.template.specs import Authorizer, FunctionSpec, Route, Throttle, WebSocketApi
from emissary_local.template.stack import Stack, number

_GATEWAY: Final = "apigateway.amazonaws.com"
_API_MAPPING: Final = "AWS::ApiGatewayV2::ApiMapping"
_CONNECT: Final = "$connect"
_REPLIES: Final = "$default"
_LAMBDA_URI: Final = re.compile(
    r"arn:aws:apigateway:[a-z0-9-]+:lambda:path/2015-03-31/functions/(arn:[^/]+)/invocations"
)
_IDENTITY: Final = re.compile(r"route\.request\.(header|querystring)\.(\S+)")


def read_api(stack: Stack, functions: Mapping[str, FunctionSpec]) -> WebSocketApi:
    """The one WebSocket API of a stack.

    Raises:
        TemplateError: If there is not exactly one with one stage, or it has what the local cloud does not do.
    """
    return _Reader(stack, functions).api()


class _Reader:
    def __init__(self, stack: Stack, functions: Mapping[str, FunctionSpec]) -> None:
        self._stack = stack
        self._by_arn = {spec.arn: spec for spec in functions.values()}
        self._permissions = [
            stack.properties(name)
            for name in stack.of_type(PERMISSION)
            if stack.value(name, "Principal") == _GATEWAY
        ]

    def api(self) -> WebSocketApi:
        stack = self._stack
        self._api = logical_id = self._only(API)
        properties, where = stack.properties(logical_id)
        expression = str(properties.get("RouteSelectionExpression", ""))
        try:
            RouteSelection(expression)
        except ValueError as exc:
            raise TemplateError(str(exc), where=f"{where}.RouteSelectionExpression") from exc
        self._check_way_in(properties, where)
        stage, place = self._properties(self._only(STAGE))
        self._stage = str(stage.get("StageName"))
        for other in stack.of_type(INTEGRATION_RESPONSE):
            self._properties(other)
        deployments = [self._properties(name)[0] for name in stack.of_type(DEPLOYMENT)]
        if (
            "DeploymentId" not in stage
            and str(stage.get("AutoDeploy")).lower() != "true"
            and all(each.get("StageName") != self._stage for each in deployments)
        ):
            raise TemplateError(
                "nothing is deployed to this stage: it needs DeploymentId or AutoDeploy", where=place
            )
        routes, authorizer = self._routes()
        per_route = (stage.get("RouteSettings") or {}).items()
        return WebSocketApi(
            logical_id=logical_id,
            api_id=stack.name(logical_id),
            stage=self._stage,
            routes=routes,
            route_selection=expression,
            default_throttle=_throttle(stage.get("DefaultRouteSettings") or {}, place),
            route_throttles={key: _throttle(settings, place) for key, settings in per_route},
            authorizer=authorizer,
        )

    def _check_way_in(self, properties: Mapping[str, Any], where: str) -> None:
        # There is one address here, and it stands for a custom domain where the API's own name is off.
        if str(properties.get("DisableExecuteApiEndpoint")).lower() != "true":
            return
        mapped = [self._stack.value(name, "ApiId") for name in self._stack.of_type(_API_MAPPING)]
        if self._stack.ref(self._api) not in mapped:
            raise TemplateError(
                f"without its own name the API has no address: no {_API_MAPPING} leads a custom domain to "
                "it; add one, or leave the name on",
                where=f"{where}.DisableExecuteApiEndpoint",
            )

    def _only(self, kind: str) -> str:
        found = self._stack.of_type(kind)
        if len(found) != 1:
            raise TemplateError(
                f"{self._stack.path} has {len(found)} resources of type {kind}; the local cloud runs exactly "
                "one WebSocket API with one stage",
                where="Resources",
            )
        return found[0]

    def _properties(self, logical_id: str) -> tuple[dict[str, Any], str]:
        """Properties of a part of the API."""
        properties, where = self._stack.properties(logical_id)
        if properties.get("ApiId") != self._stack.ref(self._api):
            raise TemplateError(f"ApiId must name {self._api}, not {properties.get('ApiId')!r}", where=where)
        return properties, where

    def _routes(self) -> tuple[dict[str, Route], Authorizer | None]:
        stack, routes = self._stack, {}
        authorizer = None
        answers = {self._properties(name)[0].get("RouteId"): name for name in stack.of_type(ROUTE_RESPONSE)}
        for logical_id in stack.of_type(ROUTE):
            properties, where = self._properties(logical_id)
            key = str(properties.get("RouteKey"))
            if key in routes:
                raise TemplateError(f"there is another route {key}", where=f"{where}.RouteKey")
            replies = properties.get("RouteResponseSelectionExpression")
            response = answers.pop(stack.ref(logical_id), None)
            if replies not in (None, _REPLIES) or (replies is None) != (response is None):
                raise TemplateError(
                    "for an answer to the client a route needs both a RouteResponseSelectionExpression of "
                    f"{_REPLIES} and a resource of type {ROUTE_RESPONSE}",
                    where=where,
                )
            routes[key] = self._route(key, properties.get("Target"), replies is not None, where)
            kind = properties.get("AuthorizationType", "NONE")
            if kind not in ("NONE", "CUSTOM") or (kind == "CUSTOM" and key != _CONNECT):
                raise TemplateError(
                    f"the local cloud knows NONE and, for $connect, CUSTOM; not {kind}",
                    where=f"{where}.AuthorizationType",
                )
            if kind == "CUSTOM":
                authorizer = self._authorizer(properties.get("AuthorizerId"), f"{where}.AuthorizerId")
        if answers:
            raise TemplateError("RouteId is no route of this API", where=f"Resources.{answers.popitem()[1]}")
        return routes, authorizer

    def _route(self, key: str, target: Any, replies: bool, where: str) -> Route:
        integration = self._find_reference(INTEGRATION, str(target).removeprefix("integrations/"))
        if integration is None:
            raise TemplateError(
                f"Target must be integrations/<an integration of this API>, not {target!r}", where=where
            )
        properties, place = self._properties(integration)
        kind = properties.get("IntegrationType")
        if kind == "MOCK" and not replies:
            return Route(None, _mock_status(properties.get("RequestTemplates"), f"{place}.RequestTemplates"))
        if kind != "AWS_PROXY":
            raise TemplateError(
                f"the local cloud knows AWS_PROXY, and MOCK without a route response; not {kind}",
                where=f"{place}.IntegrationType",
            )
        timeout = properties.get("TimeoutInMillis")
        return Route(
            self._function(
                properties.get("IntegrationUri"), f"{self._stage}/{key}", f"{place}.IntegrationUri"
            ),
            replies=replies,
            timeout=None if timeout is None else number(timeout, f"{place}.TimeoutInMillis") / 1000,
        )

    def _authorizer(self, reference: Any, where: str) -> Authorizer:
        logical_id = self._find_reference(AUTHORIZER, reference)
        if logical_id is None:
            raise TemplateError(f"{reference!r} is no authorizer of this API", where=where)
        properties, place = self._properties(logical_id)
        sources: dict[str, list[str]] = {"header": [], "querystring": []}
        for source in properties.get("IdentitySource") or []:
            match = _IDENTITY.fullmatch(str(source))
            if match is None:
                raise TemplateError(
                    "the local cloud knows route.request.header.<name> and route.request.querystring.<name>, "
                    f"not {source}",
                    where=f"{place}.IdentitySource",
                )
            sources[match.group(1)].append(match.group(2))
        function = self._function(
            properties.get("AuthorizerUri"), f"authorizers/{reference}", f"{place}.AuthorizerUri"
        )
        return Authorizer(function, tuple(sources["header"]), tuple(sources["querystring"]))

    def _find_reference(self, kind: str, reference: Any) -> str | None:
        """The resource of this type whose ``!Ref`` is ``reference``."""
        return next((name for name in self._stack.of_type(kind) if self._stack.ref(name) == reference), None)

    def _function(self, uri: Any, source: str, where: str) -> str:
        """Logical id of the function behind a URI, which ``source`` of the API must be allowed to invoke."""
        match = _LAMBDA_URI.fullmatch(str(uri))
        spec = self._by_arn.get(match.group(1)) if match else None
        if spec is None:
            raise TemplateError(f"{uri!r} names no function of this template", where=where)
        arn = f"arn:aws:execute-api:{names.REGION}:{names.ACCOUNT_ID}:{self._stack.ref(self._api)}/{source}"
        if not any(_allows(*permission, spec.name, arn) for permission in self._permissions):
            raise TemplateError(
                f"API Gateway may not invoke {spec.logical_id}: there is no {PERMISSION} of it for "
                f"{_GATEWAY} and {arn}",
                where=where,
            )
        return spec.logical_id


def _allows(permission: Mapping[str, Any], where: str, function: str, source: str) -> bool:
    """Whether a permission lets API Gateway invoke ``function`` on behalf of the ARN ``source``."""
    try:
        return (
            function_name(permission.get("FunctionName")) == function
            and Wildcard(str(permission.get("Action"))).matches("lambda:InvokeFunction")
            and permission.get("SourceAccount", names.ACCOUNT_ID) == names.ACCOUNT_ID
            and ArnPattern(permission.get("SourceArn", "*")).matches(source)
        )
    except ValueError as exc:
        raise TemplateError(str(exc), where=f"{where}.SourceArn") from exc


def _mock_status(templates: Any, where: str) -> int:
    """What a MOCK integration answers: all its templates must be the same JSON object with a statusCode."""
    try:
        answers = [json.loads(text) for text in templates.values()]
        if answers and all(set(each) == {"statusCode"} and each == answers[0] for each in answers):
            return int(answers[0]["statusCode"])
    except (AttributeError, TypeError, ValueError):
        pass
    raise TemplateError('the local cloud knows only templates that are {"statusCode": <number>}', where=where)


def _throttle(settings: Mapping[str, Any], where: str) -> Throttle:
    burst, rate = settings.get("ThrottlingBurstLimit"), settings.get("ThrottlingRateLimit")
    return Throttle(
        None if burst is None else int(number(burst, where)),
        None if rate is None else number(rate, where),
    )
