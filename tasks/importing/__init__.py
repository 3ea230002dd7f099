"""Conversion of a user's own copies of licensed data to editions, paraphrases and tasks in the data folder."""
