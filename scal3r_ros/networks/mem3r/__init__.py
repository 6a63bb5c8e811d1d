"""CUT3R and Mem3R: one image at a time against a recurrent state of tokens and a memory of
poses."""
