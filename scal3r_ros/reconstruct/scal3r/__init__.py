"""The Scal3R network as a reconstructor: numpy records on one side, torch tensors on the other."""
