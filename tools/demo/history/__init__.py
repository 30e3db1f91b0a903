"""The Alembic history that the demo applies: an ordinary ``env.py`` and ordinary revisions."""
