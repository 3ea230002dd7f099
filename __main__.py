"""``python -m culteval``."""

from culteval.harness.cli import main

if __name__ == "__main__":
    main()
