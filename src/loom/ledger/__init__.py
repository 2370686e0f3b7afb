"""Floor 1: what calls cost, one durable row each, and budgets that hold before they are sent."""
