"""Live poses: the tracker's own thread, and what it publishes."""
