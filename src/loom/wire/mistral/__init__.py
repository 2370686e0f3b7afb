"""Mistral's wire format, both roles: requests, answers, streams, errors, history rules."""
