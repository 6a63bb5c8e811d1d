"""Bundle adjustment of what a network predicted for a chunk, taken only where it is better."""
