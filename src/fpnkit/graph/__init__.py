"""A whole detector as one graph, the formats it is written in, and the runtimes that execute it."""
