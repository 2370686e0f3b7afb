"""Tools and types as JSON schema: what a model is told, and what comes back from it."""
