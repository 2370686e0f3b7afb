"""The gateway: who may call, what may be spent, and who answers."""
