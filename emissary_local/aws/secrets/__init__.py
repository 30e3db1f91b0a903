"""A small Secrets Manager: ``spec`` reads secrets from the template, ``store`` keeps and answers them."""
