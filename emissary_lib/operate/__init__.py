"""What an operator does with AWS's own API: keys in their secret, sessions in their table. Needs boto3."""
