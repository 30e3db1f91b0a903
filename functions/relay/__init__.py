"""The function inside the VPC: holds the target's socket for the length of one session."""
