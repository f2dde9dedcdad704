"""Cleaning rules: one rule, one file, its settings its own. `registry` builds them from the task file."""
