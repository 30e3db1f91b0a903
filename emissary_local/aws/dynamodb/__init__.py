"""DynamoDB in front of moto's: the template's tables, errors and reads that are behind."""
