"""The decisions of both planes on a virtual clock, before providers that count exactly: `make simulate`.

The modules of ccr_data.core and ccr_control.core are the real ones, and so is the wiring that has no input or output of its own:
config → snapshot, usage batches in the contract's encoding, Budgeting, Leasing, HealthKeeper and Prober's timetable. What the
shells do between them is mirrored here, as thinly as can be; each module says what it stands for. Belongs to neither plane.
"""
