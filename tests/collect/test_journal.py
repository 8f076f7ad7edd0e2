"""The journal: nothing that was written is lost, whatever cuts the file."""

from __future__ import annotations

import errno
import io
import json
import random
from pathlib import Path

import pytest

from understudy.collect.journal import Journal
from understudy.types import Episode


def episode(id: str, *, error: str | None = None, success: bool | None = None, text: str = "") -> Episode:
    return Episode(id=id, error=error, success=success, metadata={"text": text})


def written(path: Path, *episodes: Episode, **options: object) -> None:
    journal = Journal(path, **options)  # type: ignore[arg-type]
    for one in episodes:
        journal.append(one)
    journal.close()


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_what_was_appended_is_there_after_opening_again(tmp_path: Path, fsync: str) -> None:
    path = tmp_path / "j"
    written(path, episode("a", success=True), episode("b"), fsync=fsync)
    written(path, episode("c", text="ü\u2028\n\ud800"), fsync=fsync)
    journal = Journal(path)
    assert [id in journal for id in "abcd"] == [True, True, True, False]
    assert journal.episode("c") == episode("c", text="ü\u2028\n\ud800")
    assert (journal.success("a"), journal.success("b")) == (True, None)
    with pytest.raises(KeyError):
        journal.episode("d")


def test_wherever_the_file_is_cut_only_the_last_episode_goes_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    episodes = [episode(str(n), text="x" * n) for n in range(8)]
    written(path, *episodes)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    rng = random.Random(1)
    for cut in sorted({*rng.sample(range(len(whole)), 60), *ends, *(end - 1 for end in ends)}):
        path.write_bytes(whole[:cut])
        num_whole = sum(end <= cut for end in ends)
        journal = Journal(path)
        assert [str(n) in journal for n in range(8)] == [n < num_whole for n in range(8)]
        for one in episodes[num_whole:]:
            journal.append(one)
        journal.close()
        assert path.read_bytes() == whole


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j"
    written(path, episode("a"), episode("b"), episode("c"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * 40 + b"\n" + b"[]\n" + b'{"no": "id"}\n' + lines[2])
    journal = Journal(path)
    assert [id in journal for id in "abc"] == [True, False, True]
    assert "3 lines cannot be read" in caplog.text
    journal.append(episode("b"))
    assert [journal.episode(id).id for id in "abc"] == ["a", "b", "c"]


def test_an_episode_that_a_fault_ended_counts_as_missing_until_it_is_played_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(episode("a", error="gone"))
    assert "a" not in journal
    assert journal.episode("a").error == "gone"
    journal.append(episode("a", success=True))
    journal.close()
    journal = Journal(tmp_path / "j")
    assert "a" in journal
    assert journal.episode("a").success is True


class Full(io.FileIO):
    """A disk that has room for ten bytes more, once."""

    has_room = False

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if self.has_room or len(data) <= 10:
            return super().write(data)
        super().write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_full_disk_cuts_off_is_cut_off_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(episode("a"))
    journal._file = disk = Full(tmp_path / "j", "a+b")
    with pytest.raises(OSError, match="No space left"):
        journal.append(episode("b"))
    disk.has_room = True
    journal.append(episode("c"))
    assert [journal.episode(id) for id in journal.ids] == [episode("a"), episode("c")]
    journal.close()
    assert Journal(tmp_path / "j").ids == ["a", "c"]


def test_the_lines_are_native_rows(tmp_path: Path) -> None:
    written(tmp_path / "j.jsonl", episode("a"))
    assert json.loads((tmp_path / "j.jsonl").read_text())["schema_version"] == 1
