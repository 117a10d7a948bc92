"""Whether a process that began something is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from refseg.processes import SECONDS_UNTIL_GONE, Process, is_gone


def test_this_process_is_there() -> None:
    process = Process.current()
    assert (process.pid, process.started_at > 0) == (os.getpid(), True)
    assert Process.from_mapping(process.as_dict()) == process
    assert not process.is_known_to_be_gone
    assert not is_gone(process, 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process is told by the clock alone")
def test_a_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    process = Process.current()
    moved = psutil.Process().create_time() + 3600
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: moved)
    assert not process.is_known_to_be_gone


def test_an_ended_one_is_gone_also_before_its_parent_asks() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(Process.current(), pid=child.pid, started_at=0.0)
    try:
        assert not process.is_known_to_be_gone
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_known_to_be_gone, "nobody has asked how it ended: it is still on the system's list"
    finally:
        child.communicate()
    assert process.is_known_to_be_gone


def test_another_one_with_its_id_is_not_it() -> None:
    process = Process.current()
    assert replace(process, started_at=process.started_at - 60).is_known_to_be_gone
    assert not replace(process, started_at=0.0).is_known_to_be_gone, "who wrote it down did not say when it started"


@pytest.mark.parametrize("process", [None, Process("elsewhere", 1, 1.0)])
def test_one_of_another_machine_is_gone_when_it_was_silent(process: Process | None) -> None:
    assert not is_gone(process, SECONDS_UNTIL_GONE - 1)
    assert is_gone(process, SECONDS_UNTIL_GONE)


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumped_keeps_nothing_running_for_ever(jump: float) -> None:
    """Heard of in the future, as clocks have it: after half an hour of such a future that counts as silence."""
    assert is_gone(Process("elsewhere", 1, 1.0), jump)
    assert not is_gone(Process.current(), -SECONDS_UNTIL_GONE / 2)


def test_nothing_written_down() -> None:
    assert Process.from_mapping(None) is None
