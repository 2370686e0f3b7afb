"""Floor 2: what is a provider."""
