"""Turning a user's own copies of licensed data into editions, wording sets and tasks under the data folder."""
