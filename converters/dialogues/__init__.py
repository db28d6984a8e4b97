"""Datasets of dialogues: annotation files to Scenes."""
