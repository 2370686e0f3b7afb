"""Floor 2: providers around providers; one job each."""
