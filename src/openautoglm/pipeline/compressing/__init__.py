"""Compression as a whole: recipes, their steps one after the other, and what each cost, measured."""
