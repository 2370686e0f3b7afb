"""Floor 5: what people import."""
