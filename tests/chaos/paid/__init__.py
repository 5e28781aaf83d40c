"""Faults while people pay: completions, grants and chat at once.

What clients were told and what the provider was asked are kept apart from what the database says;
at the end the one is held against the other.
"""
