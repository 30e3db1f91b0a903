"""The use cases behind the three routes, over ports only: no AWS, no environment, no clock of their own."""
