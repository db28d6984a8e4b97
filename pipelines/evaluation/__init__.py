"""How well masks survive their words: measuring a mask tokenizer on whole sets of masks, and reporting it."""
