"""Weights and training states on disk: written whole, read without running anything, and taken over by class names."""
