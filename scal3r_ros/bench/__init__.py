"""Measurements on known worlds."""
