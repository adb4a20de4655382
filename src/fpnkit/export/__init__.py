"""Export with proof: one graph in a folder of its own, measured against the PyTorch model."""
