"""A complete scripted Anthropic-API server: the embedded demo provider, and the upstream of the tests."""

from ccr_demo.records import Record, Stats
from ccr_demo.server import DemoServer
from ccr_demo.settings import Settings

__all__ = ["DemoServer", "Record", "Settings", "Stats"]
