"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine makes examples slow; that is no fault of the code.
settings.register_profile("understudy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("understudy")

# The background job of a script is started with interrupts ignored, and so would be what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def test_data_folder() -> Path | None:
    """Return the folder of real test data, or None where this machine has none."""
    folder = Path(os.environ.get("UNDERSTUDY_TEST_DATA", DEFAULT_DATA))
    return folder if (folder / "corpus").is_dir() else None


test_data_folder.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real trajectories, templates and tokenizers; the test is skipped where it is absent."""
    folder = test_data_folder()
    if folder is None:
        pytest.skip("no test data: set UNDERSTUDY_TEST_DATA to a folder that holds corpus/, templates/ and tokenizers/")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model to train, with its tokenizer, as a folder. Copy it before you change it."""
    from tests.training import make_base  # torch is loaded only where it is needed

    return make_base(tmp_path_factory.mktemp("base") / "tiny")
