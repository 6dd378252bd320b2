"""The recipes of configs/, one module a family; its `recipes()` returns {path below configs/: text
of the file}.
"""
