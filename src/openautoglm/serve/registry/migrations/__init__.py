"""The steps of the database's schema, oldest first; a step that has been released is never changed."""
