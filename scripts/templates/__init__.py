"""The YAML files of a recipe, one module a kind of model: what no family of backbones changes is
written here, with gaps.
"""
