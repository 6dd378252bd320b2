"""The chains that the scripts of test_tipc run: each reads a txt file, runs its commands and logs
every outcome.
"""
