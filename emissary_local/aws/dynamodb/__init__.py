"""DynamoDB: moto's, with the template's tables, and with reads that may be stale."""
