"""culteval: whose values does a language model speak with, and can it be moved to another culture?

What a plug-in author imports; nothing heavy is loaded.
"""

from .errors import CultevalError, InputError, RunError, UnavailableError, UsageError

__all__ = ["CultevalError", "InputError", "RunError", "UnavailableError", "UsageError"]
