"""The WebSocket API of a template: what is read, and each thing that is refused, by its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.specs import Authorizer, Route, Throttle
from tests.unit.local.template.stacks import STACK, read

ROUTE = "RouteKey: $default,"
MOCK = "IntegrationType: MOCK\n      RequestTemplates: "

RESPONSE = """
  Response:
    Type: AWS::ApiGatewayV2::RouteResponse
    Properties: {ApiId: !Ref Api, RouteId: !Ref Route, RouteResponseKey: $default}
"""
REPLYING = STACK.replace(ROUTE, ROUTE + " RouteResponseSelectionExpression: $default,") + RESPONSE

AUTHORIZER = """
  Authorizer:
    Type: AWS::ApiGatewayV2::Authorizer
    Properties:
      ApiId: !Ref Api
      Name: guard
      AuthorizerType: REQUEST
      IdentitySource: [route.request.header.Authorization, route.request.querystring.token]
      AuthorizerUri: !Sub
        - arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Arn}/invocations
        - {Arn: !GetAtt F.Arn}
"""
GUARDED = (
    STACK.replace(ROUTE, "RouteKey: $connect, AuthorizationType: CUSTOM, AuthorizerId: !Ref Authorizer,")
    + AUTHORIZER
)


def test_an_api_has_its_stage_routes_and_throttles(tmp_path: Path) -> None:
    settings = "      RouteSettings: {say: {ThrottlingBurstLimit: 2, ThrottlingRateLimit: 1}}\n"
    api = read(tmp_path, STACK.replace("      AutoDeploy: true\n", "      AutoDeploy: true\n" + settings)).api
    assert (api.logical_id, api.stage, api.route_selection) == ("Api", "dev", "$request.body.action")
    assert api.routes == {"$default": Route("F")}
    assert (api.default_throttle, api.route_throttles) == (Throttle(20, 10.0), {"say": Throttle(2, 1.0)})
    assert api.authorizer is None


@pytest.mark.parametrize(
    ("stage", "deployment"),
    [("DeploymentId: !Ref D", "ApiId: !Ref Api"), ("Description: x", "ApiId: !Ref Api, StageName: dev")],
)
def test_a_deployed_stage_is_as_good_as_one_that_deploys_itself(
    tmp_path: Path, stage: str, deployment: str
) -> None:
    more = f"  D:\n    Type: AWS::ApiGatewayV2::Deployment\n    Properties: {{{deployment}}}\n"
    assert read(tmp_path, STACK.replace("AutoDeploy: true", stage) + more).api.stage == "dev"


MAPPING = """
  Mapping:
    Type: AWS::ApiGatewayV2::ApiMapping
    Properties: {ApiId: !Ref Api, DomainName: api.example.com, Stage: dev}
"""
ONLY_BY_DOMAIN = STACK.replace("Name: x,", "Name: x, DisableExecuteApiEndpoint: true,") + MAPPING


def test_an_api_may_be_there_for_its_custom_domain_alone(tmp_path: Path) -> None:
    assert read(tmp_path, ONLY_BY_DOMAIN).api.stage == "dev"


def test_a_domain_of_another_api_is_no_way_in(tmp_path: Path) -> None:
    text = ONLY_BY_DOMAIN.replace("{ApiId: !Ref Api, DomainName", "{ApiId: other, DomainName")
    with pytest.raises(TemplateError, match="no AWS::ApiGatewayV2::ApiMapping leads a custom domain to it"):
        read(tmp_path, text)


def test_an_integration_may_wait_less_than_29_seconds(tmp_path: Path) -> None:
    text = STACK.replace("AWS_PROXY", "AWS_PROXY\n      TimeoutInMillis: 2500")
    assert read(tmp_path, text).api.routes["$default"].timeout == 2.5


def test_a_route_with_a_response_replies(tmp_path: Path) -> None:
    assert read(tmp_path, REPLYING).api.routes["$default"].replies


def test_a_mock_answers_by_itself(tmp_path: Path) -> None:
    text = STACK.replace("IntegrationType: AWS_PROXY", MOCK + "{'200': '{\"statusCode\": 204}'}")
    assert read(tmp_path, text).api.routes["$default"] == Route(None, 204)


def test_an_authorizer_has_its_function_and_identity_sources(tmp_path: Path) -> None:
    assert read(tmp_path, GUARDED).api.authorizer == Authorizer("F", ("Authorization",), ("token",))


@pytest.mark.parametrize(
    "permission",
    [
        "FunctionName: !GetAtt F.Arn, Action: 'lambda:*'",
        "SourceArn: !Sub 'arn:aws:execute-api:*:${AWS::AccountId}:${Api}/*'",
        "SourceArn: !Sub 'arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/dev/$default'",
        "SourceArn: !Sub 'arn:aws:execute-api:*:*:${Api}/*/*', SourceAccount: !Ref AWS::AccountId",
    ],
)
def test_a_permission_that_allows_the_route_is_found(tmp_path: Path, permission: str) -> None:
    given = {"FunctionName": "!Ref F", "Action": "lambda:InvokeFunction"}
    own = ", ".join(f"{name}: {value}" for name, value in given.items() if name not in permission)
    properties = f"{{Principal: apigateway.amazonaws.com, {permission}, {own}}}".replace(", }", "}")
    old = "{Action: lambda:InvokeFunction, FunctionName: !Ref F, Principal: apigateway.amazonaws.com}"
    assert old in STACK
    assert read(tmp_path, STACK.replace(old, properties)).api.routes == {"$default": Route("F")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("WEBSOCKET", "HTTP", "Api.Properties.ProtocolType: the local cloud knows no 'HTTP' here, only: WEB"),
        ("$request.body.action", "$request.header.x", "Api.Properties.RouteSelectionExpression: the route s"),
        (", RouteSelectionExpression: $request.body.action", "", "needs a route selection expression"),
        ("Name: x,", "Name: x, Body: {},", "Api.Properties.Body: the local cloud does not know this propert"),
        ("Name: x,", "DisableExecuteApiEndpoint: true,", "ApiEndpoint: without its own name .* add"),
        ("Name: x,", "DisableExecuteApiEndpoint: perhaps,", "no 'perhaps' here, only: true, false"),
        ("AutoDeploy: true", "AutoDeploy: false", "Stage.Properties: nothing is deployed to this stage"),
        ("AutoDeploy: true", "AutoDeploy: true\n      StageVariables: {a: b}", "Stage.Properties.StageVaria"),
        ("ApiId: !Ref Api, RouteKey", "ApiId: x, RouteKey", "Route.Properties: ApiId must name Api, not 'x'"),
        ("integrations/${Integration}", "x", "Route.Properties: Target must be integrations/<.*not 'x'"),
        (ROUTE, ROUTE + " ApiKeyRequired: true,", "Route.Properties.ApiKeyRequired: .* only: false"),
        (ROUTE, ROUTE + " RequestModels: {},", "Route.Properties.RequestModels: .* does not know this prope"),
        (ROUTE, ROUTE + " AuthorizationType: AWS_IAM,", "AuthorizationType: .* CUSTOM; not AWS_IAM"),
        (ROUTE, ROUTE + " AuthorizationType: CUSTOM,", "AuthorizationType: .* for \\$connect, CUSTOM"),
        (ROUTE, ROUTE + " RouteResponseSelectionExpression: $default,", "a route needs both"),
        (ROUTE, ROUTE + " RouteResponseSelectionExpression: other,", "a route needs both"),
        ("AWS_PROXY", "HTTP_PROXY", "Integration.Properties.IntegrationType: .* AWS_PROXY, and MOCK .*HTTP_"),
        ("AWS_PROXY", "AWS", "not AWS"),
        ("AWS_PROXY", "AWS_PROXY\n      CredentialsArn: x", "Integration.Properties.CredentialsArn: .* not "),
        ("AWS_PROXY", "AWS_PROXY\n      ConnectionType: VPC_LINK", "ConnectionType: .* only: INTERNET"),
        ("AWS_PROXY", "AWS_PROXY\n      TimeoutInMillis: soon", "TimeoutInMillis: 'soon' is no number"),
        ("IntegrationType: AWS_PROXY", MOCK + "{}", "RequestTemplates: the local cloud knows only templates"),
        ("IntegrationType: AWS_PROXY", MOCK + "{'200': '#set($x)'}", "knows only templates that are"),
        ("IntegrationType: AWS_PROXY", MOCK + "{a: '{\"x\": 1}'}", "knows only templates that are"),
        ("IntegrationType: AWS_PROXY", "IntegrationType: MOCK", "knows only templates that are"),
        ("/${Arn}/invocations", "/${Arn}:live/invocations", "Integration.Properties.IntegrationUri: .* no f"),
        ("lambda:path/2015-03-31", "sqs:path", "names no function of this template"),
        ("Principal: apigateway", "Principal: events", "API Gateway may not invoke F: there is no AWS::Lamb"),
        ("Action: lambda:InvokeFunction", "Action: lambda:GetFunction", "API Gateway may not invoke F"),
        ("FunctionName: !Ref F,", "FunctionName: other,", "API Gateway may not invoke F"),
        ("FunctionName: !Ref F,", "FunctionName: !Ref F, SourceAccount: '1',", "API Gateway may not invoke "),
        (
            "FunctionName: !Ref F,",
            "FunctionName: !Ref F, SourceArn: !Sub 'arn:aws:execute-api:*:*:${Api}/dev/$connect',",
            "API Gateway may not invoke F: .*/dev/\\$default",
        ),
        ("FunctionName: !Ref F,", "FunctionName: !Ref F, SourceArn: x,", "Permission.Properties.SourceArn: "),
    ],
)  # fmt: skip
def test_what_the_gateway_does_not_do_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STACK
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, STACK.replace(old, new))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STACK + RESPONSE, "a route needs both"),
        (REPLYING.replace("RouteResponseKey: $default", "RouteResponseKey: x"), "knows no 'x' here, only"),
        (REPLYING.replace("RouteId: !Ref Route", "RouteId: x"), "a route needs both"),
        (REPLYING + RESPONSE.replace("Response:", "Other:").replace("!Ref Route,", "x,"), "Other: RouteId i"),
        (REPLYING.replace("IntegrationType: AWS_PROXY", MOCK + "{}"), "MOCK without a route response; not M"),
        (
            STACK + "  Other:\n    Type: AWS::ApiGatewayV2::Route\n    Properties: {ApiId: !Ref Api, "
            'RouteKey: $default, Target: !Sub "integrations/${Integration}"}\n',
            "Other.Properties.RouteKey: there is another route \\$default",
        ),
        (
            STACK + "  Other:\n    Type: AWS::ApiGatewayV2::Stage\n",
            "has 2 resources of type AWS::ApiGatewayV2::Stage; the local cloud runs exactly one",
        ),
        (
            STACK + "  Other:\n    Type: AWS::ApiGatewayV2::IntegrationResponse\n"
            "    Properties: {ApiId: !Ref Api, IntegrationId: !Ref Integration, ResponseTemplates: {}}\n",
            "Other.Properties.ResponseTemplates: .* does not know this property",
        ),
    ],
)  # fmt: skip
def test_responses_and_parts_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("AuthorizerType: REQUEST", "AuthorizerType: JWT", "AuthorizerType: .* no 'JWT' here, only: REQUEST"),
        ("route.request.querystring.token", "context.token", "IdentitySource: .* not context.token"),
        ("Name: guard", "AuthorizerCredentialsArn: x", "AuthorizerCredentialsArn: .* does not know this"),
        ("Name: guard", "AuthorizerResultTtlInSeconds: 300", "AuthorizerResultTtlInSeconds: .* only: 0"),
        ("AuthorizerId: !Ref Authorizer,", "", "AuthorizerId: None is no authorizer of this API"),
        ("FunctionName: !Ref F,",
         "FunctionName: !Ref F, SourceArn: !Sub 'arn:aws:execute-api:*:*:${Api}/dev/*',",
         "Authorizer.Properties.AuthorizerUri: API Gateway may not invoke F: .*/authorizers/"),
    ],
)  # fmt: skip
def test_what_an_authorizer_may_not_be_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GUARDED
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, GUARDED.replace(old, new))
