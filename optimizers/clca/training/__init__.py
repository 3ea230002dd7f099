"""Training on dialogues: the examples, and the LoRA adapter."""
