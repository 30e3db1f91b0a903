"""What the ``emissary`` command does for the platform's side; ``emissary_lib.cli`` parses and calls."""
