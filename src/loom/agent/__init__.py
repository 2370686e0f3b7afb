"""What uses a provider and tools: the loop, its sessions, what it acts on."""
