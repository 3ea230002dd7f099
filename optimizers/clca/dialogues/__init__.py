"""Dialogues to learn from: scenarios, their simulation, files of other people's, filters, intents."""
