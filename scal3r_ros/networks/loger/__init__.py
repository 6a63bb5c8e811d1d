"""LoGeR and LoGeR*: windows of frames tied by fast weights that are read before they are written,
and by attention to the window before."""
