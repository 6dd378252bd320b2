"""The formats of weight files, each read without running code of the file."""
