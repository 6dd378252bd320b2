"""`python -m ppcls_nextvit COMMAND` is `nextvit COMMAND`."""

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
