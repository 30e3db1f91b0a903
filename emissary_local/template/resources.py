"""Which resources and properties a template may have: what is read, what is passed over, what is refused.

Whatever would make a stack behave differently here than on AWS is refused when the local cloud starts, so
everything is listed: what is in no list is not known.

Source: AWS CloudFormation Template Reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

API: Final = "AWS::ApiGatewayV2::Api"
AUTHORIZER: Final = "AWS::ApiGatewayV2::Authorizer"
DEPLOYMENT: Final = "AWS::ApiGatewayV2::Deployment"
INTEGRATION: Final = "AWS::ApiGatewayV2::Integration"
INTEGRATION_RESPONSE: Final = "AWS::ApiGatewayV2::IntegrationResponse"
ROUTE: Final = "AWS::ApiGatewayV2::Route"
ROUTE_RESPONSE: Final = "AWS::ApiGatewayV2::RouteResponse"
STAGE: Final = "AWS::ApiGatewayV2::Stage"
TABLE: Final = "AWS::DynamoDB::Table"
MANAGED_POLICY: Final = "AWS::IAM::ManagedPolicy"
POLICY: Final = "AWS::IAM::Policy"
ROLE: Final = "AWS::IAM::Role"
ROLE_POLICY: Final = "AWS::IAM::RolePolicy"
EVENT_INVOKE_CONFIG: Final = "AWS::Lambda::EventInvokeConfig"
FUNCTION: Final = "AWS::Lambda::Function"
PERMISSION: Final = "AWS::Lambda::Permission"
SECRET: Final = "AWS::SecretsManager::Secret"


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of one type.

    Attributes:
        read: What the local cloud acts on.
        ignored: What changes nothing for a run here.
        only: What would change something, but for these values, in any case.
    """

    read: frozenset[str]
    ignored: frozenset[str] = frozenset()
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _of(read: str, ignored: str = "", **only: str) -> Properties:
    values = {name: tuple(text.split()) for name, text in only.items()}
    return Properties(frozenset(read.split()), frozenset(ignored.split()), values)


#: The types that are read.
READ: Final[Mapping[str, Properties]] = {
    API: _of(
        "RouteSelectionExpression", "ApiKeySelectionExpression Description IpAddressType Name Tags Version",
        ProtocolType="WEBSOCKET", DisableExecuteApiEndpoint="true false",
        DisableSchemaValidation="true false",
    ),
    AUTHORIZER: _of(
        "ApiId AuthorizerUri IdentitySource", "Name",
        AuthorizerType="REQUEST", AuthorizerResultTtlInSeconds="0", EnableSimpleResponses="false",
    ),
    DEPLOYMENT: _of("ApiId StageName", "Description"),
    INTEGRATION: _of(
        "ApiId IntegrationType IntegrationUri RequestTemplates TimeoutInMillis",
        "Description PassthroughBehavior TemplateSelectionExpression",
        IntegrationMethod="POST", ConnectionType="INTERNET", PayloadFormatVersion="1.0",
        ContentHandlingStrategy="CONVERT_TO_TEXT",
    ),
    INTEGRATION_RESPONSE: _of("ApiId", "IntegrationId IntegrationResponseKey"),
    ROUTE: _of(
        "ApiId AuthorizationType AuthorizerId RouteKey RouteResponseSelectionExpression Target",
        "OperationName", ApiKeyRequired="false",
    ),
    ROUTE_RESPONSE: _of("ApiId RouteId", "", RouteResponseKey="$default"),
    STAGE: _of(
        "ApiId AutoDeploy DefaultRouteSettings DeploymentId RouteSettings StageName",
        "AccessLogSettings Description Tags",
    ),
    TABLE: _of(
        "AttributeDefinitions BillingMode GlobalSecondaryIndexes KeySchema LocalSecondaryIndexes "
        "ProvisionedThroughput TableName TimeToLiveSpecification",
        "ContributorInsightsSpecification DeletionProtectionEnabled OnDemandThroughput SSESpecification "
        "PointInTimeRecoverySpecification StreamSpecification TableClass Tags WarmThroughput",
    ),
    MANAGED_POLICY: _of("ManagedPolicyName PolicyDocument Roles", "Description Groups Path Users"),
    POLICY: _of("PolicyDocument Roles", "Groups PolicyName Users"),
    ROLE: _of(
        "ManagedPolicyArns PermissionsBoundary Policies RoleName",
        "AssumeRolePolicyDocument Description MaxSessionDuration Path Tags",
    ),
    ROLE_POLICY: _of("PolicyDocument RoleName", "PolicyName"),
    EVENT_INVOKE_CONFIG: _of(
        "DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts", "",
        Qualifier="$LATEST",
    ),
    FUNCTION: _of(
        "Code Environment FunctionName Handler MemorySize ReservedConcurrentExecutions Role Runtime Timeout",
        "Architectures CodeSigningConfigArn Description EphemeralStorage LoggingConfig RecursiveLoop "
        "RuntimeManagementConfig Tags TracingConfig VpcConfig",
        PackageType="Zip",
    ),
    PERMISSION: _of("Action FunctionName Principal SourceAccount SourceArn", "EventSourceToken"),
    SECRET: _of("GenerateSecretString KmsKeyId Name SecretString", "Description ReplicaRegions Tags"),
}  # fmt: skip

#: Types that change nothing for a run here: who watches, what is logged, names in DNS, the network, schedules
#: (which do not fire). What ends in ``::`` is a whole service.
PASSED_OVER: Final = frozenset({
    "AWS::ApiGateway::Account", "AWS::ApiGatewayV2::ApiMapping", "AWS::ApiGatewayV2::DomainName",
    "AWS::ApiGatewayV2::Model", "AWS::ApplicationAutoScaling::", "AWS::ApplicationInsights::",
    "AWS::Backup::", "AWS::Budgets::", "AWS::CDK::Metadata", "AWS::CertificateManager::", "AWS::CloudWatch::",
    "AWS::CloudFormation::WaitConditionHandle", "AWS::EC2::", "AWS::Events::Rule", "AWS::KMS::Alias",
    "AWS::KMS::Key", "AWS::Lambda::LayerVersion", "AWS::Logs::", "AWS::ResourceGroups::", "AWS::Route53::",
    "AWS::SNS::", "AWS::Scheduler::", "AWS::SecretsManager::ResourcePolicy",
})  # fmt: skip


def is_passed_over(resource_type: str) -> bool:
    """Whether resources of this type are left out without a word."""
    service = resource_type.rpartition("::")[0] + "::"
    return resource_type in PASSED_OVER or service in PASSED_OVER
