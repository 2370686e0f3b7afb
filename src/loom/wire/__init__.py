"""Floor 1: bytes and dicts to core values and back; pure, without I/O."""
