"""`python -m weight_conversion` is `nextvit convert`."""
