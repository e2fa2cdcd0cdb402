"""No test leaves a process behind."""

import pytest

from tests.launch.commands import STARTED


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Kill what a failed test started and did not wait for; a sweep's workers follow it."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()
