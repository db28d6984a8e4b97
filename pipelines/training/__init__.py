"""Training of the mask tokenizer: the loop, its checkpoints, and what a person sees of a run."""
