"""Training a detector: recipe, optimiser, processes, the run's folder."""
