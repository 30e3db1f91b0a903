"""Reads a SAM template: parameters, intrinsic functions, and the resources the local cloud runs."""
