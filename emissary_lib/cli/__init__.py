"""The ``emissary`` command: arguments in, text and an exit status out."""
