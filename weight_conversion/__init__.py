"""The command line of `ppcls_nextvit.weights.convert`: see __main__.py."""
