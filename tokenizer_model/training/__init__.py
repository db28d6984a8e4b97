"""How a mask tokenizer is trained: recipe, examples, losses, one step, checkpoints. No cluster and no files of data."""
