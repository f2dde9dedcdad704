"""The peers of the engine benchmark: their environments, models, runners, and the schedule that times them.

A runner (`run_*.py`) is a process in an environment of its own; it imports nothing of openautoglm and prints one
JSON line for each measurement.
"""
