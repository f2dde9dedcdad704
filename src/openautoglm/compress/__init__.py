"""Makes models smaller, one method a file or a package; each has its own settings."""
