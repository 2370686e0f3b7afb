"""Floor 4: what puts the house together: settings, secrets, assembly."""
