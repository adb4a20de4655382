"""A look at annotated images before a night of training is spent on them."""
