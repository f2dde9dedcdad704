"""One file per metric, named after it."""
