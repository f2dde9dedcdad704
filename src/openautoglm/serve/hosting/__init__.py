"""Models of a registry in memory: chosen by name, loaded on first use, unloaded under a budget."""
