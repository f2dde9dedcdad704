"""The registry: models, versions, aliases, routes, keys and conversations, in SQLite or PostgreSQL."""
