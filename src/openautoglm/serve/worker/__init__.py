"""Engines in processes of their own, behind Unix sockets, watched by their progress; several of them as a fleet."""
