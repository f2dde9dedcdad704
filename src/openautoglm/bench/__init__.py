"""Load and its figures: arrivals, clients, measurements, and a sweep of the engine's settings under load."""
