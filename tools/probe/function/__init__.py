"""The code of the probe's one function: what is deployed is this folder alone."""
