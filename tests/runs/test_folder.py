"""Run folders: never lose somebody's files, always say what ran."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from understudy.errors import ConfigError
from understudy.runs import RunFolder, package_versions


def finished_run(path, **facts) -> None:
    run = RunFolder.open(path, config="a: 1\n", data=facts, command=["understudy", "train"])
    (path / "checkpoint-1").mkdir()
    (path / "checkpoint-1" / "model").write_text("weights")
    run.close("finished")


def test_a_run_says_what_ran_when_and_on_what(tmp_path) -> None:
    run = RunFolder.open(tmp_path / "deep" / "run", config="a: 1\n", data={"rows": "abc"}, command=["understudy", "x"])
    run.note(template="def")
    run.close("finished")
    provenance = json.loads((tmp_path / "deep/run/provenance.json").read_text())
    assert provenance["data"] == {"rows": "abc", "template": "def"}
    assert provenance["status"] == "finished"
    start = provenance["starts"][0]
    assert start["command"] == ["understudy", "x"]
    assert start["python"] == sys.version.split()[0]
    assert start["packages"]["transformers"]
    assert datetime.fromisoformat(start["at"]).utcoffset().total_seconds() == 0
    assert (tmp_path / "deep/run/config.yaml").read_text() == "a: 1\n"


def test_versions_are_found_without_importing_the_packages() -> None:
    script = (
        "import sys; from understudy.runs import package_versions\n"
        "assert package_versions()['torch']; assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert package_versions()["pydantic"]


def test_a_run_is_not_overwritten_by_accident(tmp_path) -> None:
    finished_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a finished run; resume it, overwrite it, or name another folder"):
        RunFolder.open(tmp_path / "run", config="")
    assert (tmp_path / "run/checkpoint-1/model").read_text() == "weights"


def test_resume_keeps_everything_and_adds_a_start(tmp_path) -> None:
    finished_run(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run", config="a: 2\n", resume=True)
    assert run.is_resumed
    assert len(run.provenance["starts"]) == 2
    assert run.provenance["status"] == "running"
    assert (tmp_path / "run/checkpoint-1/model").read_text() == "weights"
    run.close("interrupted")
    with pytest.raises(ConfigError, match="a run that did not finish"):
        RunFolder.open(tmp_path / "run", config="")


def test_resume_without_a_run_starts_one(tmp_path) -> None:
    run = RunFolder.open(tmp_path / "run", config="", resume=True)
    assert not run.is_resumed
    run.close("finished")


def test_overwrite_deletes_the_old_run(tmp_path) -> None:
    finished_run(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run", config="", overwrite=True)
    assert not (tmp_path / "run/checkpoint-1").exists()
    assert len(run.provenance["starts"]) == 1
    run.close("finished")


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, flags: dict) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"not empty and holds no run \(it has 'thesis.tex'\)"):
        RunFolder.open(tmp_path, config="", **flags)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_folder_one_stands_in_is_not_deleted(tmp_path, monkeypatch) -> None:
    finished_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run" / "checkpoint-1")
    with pytest.raises(ConfigError, match="started in"):
        RunFolder.open(tmp_path / "run", config="", overwrite=True)


def test_two_processes_cannot_run_in_one_folder(tmp_path) -> None:
    script = "import sys; from understudy.runs import RunFolder\nRunFolder.open(sys.argv[1], config='', resume=True)\n"
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    run = RunFolder.open(tmp_path / "run", config="")
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another process is running in this folder" in other.stderr
    run.close("finished")
    assert subprocess.run(command, check=False).returncode == 0


def test_what_is_logged_goes_to_run_log_until_the_run_closes(tmp_path) -> None:
    logger = logging.getLogger("understudy.train")
    run = RunFolder.open(tmp_path / "run", config="")
    logger.warning("a warning with ü")
    run.close("finished")
    logger.warning("afterwards")
    text = (tmp_path / "run/run.log").read_text()
    assert "WARNING understudy.train: a warning with ü" in text
    assert "afterwards" not in text


@pytest.mark.parametrize(("error", "status"), [(ValueError("no"), "failed"), (KeyboardInterrupt("no"), "interrupted")])
def test_an_error_ends_a_run_and_stands_in_its_log_alone(tmp_path, caplog, error: BaseException, status: str) -> None:
    outer = RunFolder.open(tmp_path / "outer", config="")
    inner = RunFolder.open(tmp_path / "outer" / "inner", config="")
    inner.fail(error)
    outer.close("finished")
    assert f"{type(error).__name__}: no" in (tmp_path / "outer/inner/run.log").read_text()
    assert "no" not in (tmp_path / "outer/run.log").read_text() + caplog.text
    assert json.loads((tmp_path / "outer/inner/provenance.json").read_text())["status"] == status


def test_an_interrupt_without_a_text_is_written_as_its_name(tmp_path) -> None:
    folder = RunFolder.open(tmp_path / "run", config="")
    folder.fail(KeyboardInterrupt())
    assert (tmp_path / "run" / "run.log").read_text().endswith(": KeyboardInterrupt\n")


def test_a_file_in_the_way_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make this folder"):
        RunFolder.open(tmp_path / "file" / "run", config="")


def test_resume_and_overwrite_exclude_each_other(tmp_path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        RunFolder.open(tmp_path / "run", config="", resume=True, overwrite=True)
