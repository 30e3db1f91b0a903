"""Lambda: execution environments as processes of their own, frozen between invocations."""
