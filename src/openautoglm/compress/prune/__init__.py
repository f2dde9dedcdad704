"""Pruning: parts of a model that add little are taken out, or single weights become zero."""
