"""Dated facts about models and money: pure functions of a day."""
