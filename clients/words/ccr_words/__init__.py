"""Decisions in words, the same on every screen: shared by the command line and the terminal dashboard."""
