"""Training on procedurally made worlds: scenes, rendering, losses, the training loop,
evaluation."""
