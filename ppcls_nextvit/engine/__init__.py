"""Training and evaluation: one loop (train.py), the tasks it serves (tasks.py), and what these are
made of.
"""
