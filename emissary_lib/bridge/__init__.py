"""The stored session, pure: what functions write to the table and what operators read from it."""
