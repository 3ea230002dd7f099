"""A task of culteval in a package of its own; the entry point names the spec in this folder."""
