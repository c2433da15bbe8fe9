"""Real processes under random faults; what happened is recorded, and each promise has a check over the record (docs/chaos.md)."""
