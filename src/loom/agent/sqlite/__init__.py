"""What stands between a model's SQL and a SQLite file: the guard, the run, the schema."""
