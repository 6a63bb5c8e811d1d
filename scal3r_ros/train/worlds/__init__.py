"""Procedural worlds: layouts, textures, cameras and their motion, rendered to clips and tours."""
