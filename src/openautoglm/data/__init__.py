"""The data door: files become examples, examples are cleaned, deduplicated, split and packed."""
