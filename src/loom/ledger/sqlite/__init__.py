"""The ledger in one SQLite file: its form, its single writer thread, its readers."""
