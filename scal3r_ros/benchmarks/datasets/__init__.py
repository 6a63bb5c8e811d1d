"""One file a data set: its native layout, its usual selection of frames, its truth."""
