"""The speech lab: recordings turned into text."""
