"""Text and ids: the tokenizer, the prompt template, and what of a record a text covers."""
