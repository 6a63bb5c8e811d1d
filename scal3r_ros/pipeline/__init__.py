"""Composition: chunks through a reconstructor into the map."""
