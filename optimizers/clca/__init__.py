"""CLCA: a culture learned from simulated social interactions (Liu, Korhonen & Gurevych 2025, arXiv 2504.02953)."""
