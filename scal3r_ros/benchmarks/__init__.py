"""Runners for public data sets: native layouts in, scores by pinned definitions out."""
