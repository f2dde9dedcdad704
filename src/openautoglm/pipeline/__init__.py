"""From a task file to a finished run: stages, their state, their report."""
