"""Training: settings, batches to loss, optimiser, exact resume, LoRA. `train` in `loop` is a generator of steps."""
