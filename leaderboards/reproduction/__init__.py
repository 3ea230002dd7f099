"""Tables of published papers, computed from runs of this package."""
