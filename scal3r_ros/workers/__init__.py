"""Several GPUs, one memory: chunks handed out, gradients added up, all absorbed once."""
