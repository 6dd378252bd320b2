"""Segmentors and their parts."""
