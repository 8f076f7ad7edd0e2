"""The entry point: help, typos, errors and exit statuses."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time

import pytest

from tests.cli.commands import WEATHER, command, run_command
from understudy import __version__
from understudy.cli.main import VERBS, main


def test_help_names_every_verb(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for verb, (_, summary) in VERBS.items():
        assert f"  {verb} " in text
        assert summary in text


def test_no_arguments_print_the_help_and_are_an_error(capsys) -> None:
    assert main([]) == 2
    assert "commands" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples_and_exit_statuses(verb: str, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*verb.split(), "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    module = importlib.import_module(VERBS[verb][0])
    assert module.__doc__.strip() in text
    assert f"  understudy {verb} " in text.partition("examples:")[2]
    assert "exit status: 0 " in text


def test_the_version_is_the_package_s(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"understudy {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convrt"], "unknown command 'convrt'. Did you mean 'convert'?"),
        (["store"], "'store' alone is no command. Known: store add, store export, store release, store show"),
        (["store", "ad"], "unknown command 'store ad'. Did you mean 'store add'?"),
        (["--hlp"], "unknown option '--hlp'. Did you mean '--help'?"),
        (["stats", "x", "--jsn"], "unknown option '--jsn'. Did you mean '--json'?"),
        (["stats", "x", "--modle=m"], "unknown option '--modle'. Did you mean '--model'?"),
        (["stats", "--jso", "x"], "unknown option '--jso'. Did you mean '--json'?"),
        (
            ["convert", str(WEATHER), "out.jsonl", "--to", "mesages"],
            "unknown format 'mesages'. Did you mean 'messages'?",
        ),
        (["stats", str(WEATHER), "--format", "mesages"], "unknown format 'mesages'. Did you mean 'messages'?"),
        (["stats", str(WEATHER), "--by", "enviroment"], "cannot group by 'enviroment'. Did you mean 'environment'?"),
        (["stats", str(WEATHER), "--limit", "0"], "'0' is not a whole number above zero"),
        (["convert", "a"], "the following arguments are required: DST"),
        (["stats", str(WEATHER), "--rejects", "x"], "--rejects needs --skip-bad"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(arguments: list[str], words: str, capsys) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_bad_data_is_status_1_and_one_clean_line(tmp_path, capsys) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"messages": 5}\n')
    assert main(["stats", str(path), "--format", "messages"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path}:2: messages: ")
    assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback(capsys) -> None:
    assert main(["stats", "/nowhere", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["--debug", "stats", "/nowhere"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet_and_status_130(tmp_path) -> None:
    process = subprocess.Popen(
        command("convert", "-", tmp_path / "out.jsonl", "--to", "messages"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(WEATHER.read_bytes() * 20)
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(tmp_path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_bytes(WEATHER.read_bytes() * 200)
    process = subprocess.Popen(
        command("convert", many, "-", "--to", "messages"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_clean_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("stats", WEATHER, "--json"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "error: [Errno 28] No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_that_the_terminal_lacks_does_not_stop_a_command(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"environment": "w\\ud83dü", "messages": [{"role": "user", "content": "hi"}]}\n')
    done = run_command("stats", path, env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "w\\ud83d\\xfc" in done.stdout
