"""Pictures: boxes on photographs, curves, grids of samples."""
