"""The data plane: proxies and streams, and does nothing else."""

from ccr_data import compiled

IS_COMPILED = compiled.install()  # before any of the modules is imported
