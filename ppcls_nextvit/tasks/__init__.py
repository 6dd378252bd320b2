"""The tasks: classification, detection, segmentation; each folder holds all that one task is."""
