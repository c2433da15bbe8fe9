"""`ccr doctor`: proves the whole path through the running relay, and names what is wrong on it."""
