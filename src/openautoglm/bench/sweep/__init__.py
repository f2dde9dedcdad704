"""A bundle's engine settings under load: every point in a process of its own, resumable, with a recommendation."""
