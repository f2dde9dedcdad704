"""Facts and weights of GLM models: specs, presets, transformers classes, bundles."""
