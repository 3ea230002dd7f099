"""What is learned from dialogues, and the LoRA adapter that learns it."""
