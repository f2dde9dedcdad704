"""Search: knows only numbers. ``study.search`` finds a good point of a ``Space`` for an objective."""
