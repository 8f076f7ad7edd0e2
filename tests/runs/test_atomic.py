"""A file is there as a whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from understudy.runs import atomic_file, write_atomically


def test_the_content_replaces_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "first")
    write_atomically(path, b"sec\xffond")
    assert path.read_bytes() == b"sec\xffond"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_and_fail() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    script = (
        "import os, signal, sys\n"
        "from understudy.runs import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_the_mode_is_that_of_a_plainly_written_file(tmp_path) -> None:
    (tmp_path / "plain").write_text("x")
    write_atomically(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "atomic").chmod(0o640)
    write_atomically(tmp_path / "atomic", "y")
    assert (tmp_path / "atomic").stat().st_mode & 0o777 == 0o640


def test_half_of_a_surrogate_pair_does_not_stop_a_report(tmp_path) -> None:
    write_atomically(tmp_path / "a.json", json.dumps({"said": "a\ud800b"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"said": "a\ud800b"}
