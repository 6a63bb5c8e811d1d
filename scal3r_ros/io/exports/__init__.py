"""A map in the formats of other programs: one exporter a file, one table of them all."""
