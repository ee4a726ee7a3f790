"""``python -m falco_talon`` is ``talon``."""

from falco_talon.cli import main

if __name__ == "__main__":
    main()
