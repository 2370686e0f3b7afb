"""What stands between a model's paths and a folder: the walk, reading, writing."""
