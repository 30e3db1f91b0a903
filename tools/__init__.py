"""Tools for working on Emissary: building, replaying, measuring. Not part of any package or artifact."""
