"""OpenAI's chat completions, both roles: OpenAI itself and every server that speaks like it."""
