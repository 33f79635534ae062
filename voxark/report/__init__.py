"""Figures of a recipe and of trial scores: curves as arrays, and how they are drawn."""
