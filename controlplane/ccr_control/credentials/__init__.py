"""How clouds' credentials are found, one module for each cloud, by the clouds' own libraries.

Blocking, for a thread. The libraries are imported when the first credential of their cloud is sought: without one they cost nothing.
"""
