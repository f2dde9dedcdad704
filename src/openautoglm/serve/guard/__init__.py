"""The guard: who may do what, and how much of it; deny by default."""
