"""Least privilege: decides whether a function's policies in the template allow a call.

``patterns`` and ``conditions`` compare, ``statements`` reads policy documents, ``privileges`` decides and
keeps count, ``report`` is what users are told, ``dynamodb`` says which permissions a DynamoDB request needs.
"""
