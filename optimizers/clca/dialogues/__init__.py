"""Dialogues for training: scenarios, simulation, files of the user's dialogues, filters, intents."""
