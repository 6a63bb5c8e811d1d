"""What launch files need: their shared parts, and the player of recordings."""
