"""A culteval task in a separate package; the entry point names the spec in this folder."""
