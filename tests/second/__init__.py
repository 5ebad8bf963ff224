"""A second implementation of the protocol between two ends; `tests/second_implementation.py` says what it is for."""
