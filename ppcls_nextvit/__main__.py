"""`python -m ppcls_nextvit COMMAND` is `nextvit COMMAND`."""

from .cli.main import main

raise SystemExit(main())
