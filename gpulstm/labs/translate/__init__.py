"""The translation lab: sentences of one language into another."""
