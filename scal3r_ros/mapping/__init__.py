"""Chunks to one map: alignment, loops, pose graph, points, poses. numpy and scipy only."""
