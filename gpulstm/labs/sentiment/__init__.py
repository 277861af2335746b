"""The sentiment lab: texts sorted into classes."""
