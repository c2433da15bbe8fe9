"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Generator

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import of gRPC, whose C core writes to stderr by itself

# In tests' own processes the sources run, so that what fails can be read; workers run what users run.
os.environ["CCR_INTERPRETED"] = "1"
import ccr_data  # noqa: F401

del os.environ["CCR_INTERPRETED"]

import pytest
from hypothesis import settings
from support import order
from support.tls import Certificates, make_certificates

EXAMPLES = int(os.environ.get("CCR_EXAMPLES", "50"))  # of each property that does not say itself how many
settings.register_profile("here", deadline=None, max_examples=EXAMPLES)  # a unit test asserts nothing about time
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption("--note-times", action="store_true", help="write how long each file took to tests/slow_files.txt")


def pytest_configure(config: pytest.Config) -> None:
    """The process that hears of all tests notes their times."""
    if config.getoption("--note-times") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(order.NoteTimes())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that run side by side begin with the longest."""
    if hasattr(config, "workerinput"):
        order.longest_first(items)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for providers on loopback."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test wrote may hold anything, also what cannot be sent from one process of pytest's to another."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
