"""`make demo`: a real database's migrations through the local cloud, checked on the database itself."""
