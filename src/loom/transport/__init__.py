"""The only door to a vendor."""
