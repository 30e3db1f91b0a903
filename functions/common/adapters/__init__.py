"""The ports over AWS: the only modules here that import boto3."""
