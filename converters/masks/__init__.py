"""Sources of masks: images with masks, without dialogues."""
