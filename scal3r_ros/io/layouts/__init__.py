"""Layouts of public data sets and tools: which images, true stamps and intrinsics."""
