"""Generation: prompts of ids to candidates, and the choice among them."""
