"""Training: settings, loss, optimiser, exact resume, LoRA. `train` in `loop` is a generator of steps."""
