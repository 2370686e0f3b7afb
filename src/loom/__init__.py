"""Loom: a Mistral-first LLM library."""
