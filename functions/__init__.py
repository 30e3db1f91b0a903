"""The Lambda functions: one folder for each, and ``common`` for what they share."""
