"""Chunk in, prediction out: the interface, and one folder for each reconstructor behind it."""
