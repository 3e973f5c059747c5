"""Programs of the system that some tests talk to."""

import os
import shutil

import pytest


def need_program(name: str) -> str:
    """The path of a program; without it the test is skipped, in CI it fails."""
    found = shutil.which(name)
    if found is None:
        missing = f"program {name} is not on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
