"""Templates of plain resources for the tests of this folder: an API, its routes, one function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emissary_local.template.intrinsics import load_yaml
from emissary_local.template.specs import Template
from emissary_local.template.template import read_template

#: An API with one route, without the function behind it.
API = """
Resources:
  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: x, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties:
      ApiId: !Ref Api
      StageName: dev
      AutoDeploy: true
      DefaultRouteSettings: {ThrottlingBurstLimit: 20, ThrottlingRateLimit: 10}
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties: {ApiId: !Ref Api, RouteKey: $default, Target: !Sub "integrations/${Integration}"}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Api
      IntegrationType: AWS_PROXY
      IntegrationUri: !Sub
        - arn:aws:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Arn}/invocations
        - {Arn: !GetAtt F.Arn}
  Permission:
    Type: AWS::Lambda::Permission
    Properties: {Action: lambda:InvokeFunction, FunctionName: !Ref F, Principal: apigateway.amazonaws.com}
  R:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: {}}
"""

#: The function, last, so that a test can go on with its properties or with more resources.
FUNCTION = """
  F:
    Type: AWS::Lambda::Function
    Properties:
      Code: .
      Handler: app.handler
      Runtime: python3.13
      Role: !GetAtt R.Arn
"""
STACK = API + FUNCTION


def document(text: str = STACK) -> dict[str, Any]:
    """A template as a document, to be changed."""
    return load_yaml(text, "template.yaml")


def read(tmp_path: Path, text: str, **parameters: str) -> Template:
    """Write a template and read it."""
    file = tmp_path / "template.yaml"
    file.write_text(text)
    return read_template(file, parameters)
