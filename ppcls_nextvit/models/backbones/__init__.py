"""The families of backbones, one file each."""
