"""The tests: run `pytest` at the top of a checkout; CONTRIBUTING.md says what each of them needs."""
