"""Environments on other machines: the same episodes as here, each in a session of its own."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.collect import Play, play_all, play_episode
from understudy.environments import Step, user
from understudy.environments.base import HasScore, HasTasks, Observation, Reward, Score
from understudy.environments.remote.client import RemoteEnvironment
from understudy.environments.remote.server import EnvironmentServer
from understudy.errors import ConfigError, EnvironmentFault
from understudy.formats.native import Native
from understudy.formats.rows import dump_row
from understudy.policies.random_policy import RandomPolicy
from understudy.types import JSON, Episode, Message


@contextmanager
def serving(name: str, arguments: dict[str, Any] | None = None, **settings: Any) -> Iterator[str]:
    """Serve in a thread, and give the URL."""
    server = EnvironmentServer(name, arguments or {}, **settings)
    urls: list[str] = []
    is_ready, stopped = threading.Event(), threading.Event()

    async def main() -> None:
        async with server.listening("127.0.0.1", 0) as url:
            urls.append(url)
            is_ready.set()
            while not stopped.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert is_ready.wait(10)
    try:
        yield urls[0]
    finally:
        stopped.set()
        thread.join(10)


def health(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/health") as reply:
        found: dict[str, int] = json.loads(reply.read())
    return found


def played(name: str, arguments: dict[str, Any], num: int = 20) -> list[bytes]:
    tasks = registry.create("environments", name, arguments).tasks("test")
    plays = [Play(id=f"{n}", environment="x", task=tasks[n], seed=n) for n in range(num)]
    rows: dict[str, bytes] = {}
    native = Native()
    agents = registry.create("environments", name, arguments).agents
    asyncio.run(
        play_all(
            plays,
            lambda: registry.create("environments", name, arguments),
            dict.fromkeys(agents, RandomPolicy()),
            lambda episode: rows.__setitem__(episode.id, dump_row(native.write_row(episode))),
            concurrency=8,
            max_turns=8,
        )
    )
    return [rows[play.id] for play in plays]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("tools", {"level": 3}), ("team", {"level": 1}), ("grid", {"interface": "text", "view": "replace"})],
)
def test_episodes_are_byte_for_byte_those_that_are_played_here(name: str, arguments: dict[str, Any]) -> None:
    with serving(name, arguments) as url:
        assert played("remote", {"url": url}) == played(name, arguments)
        environment = registry.create("environments", "remote", {"url": url})
        here = registry.create("environments", name, arguments).tasks("train")
        there = environment.tasks("train")
        assert len(there) == len(here)
        assert [there[k] for k in (0, 199, 200, 450, -1)] == [here[k] for k in (0, 199, 200, 450, -1)]
        assert health(url)["sessions"] == 0, "sessions are given back"


class Rude:
    """Faults when it is told to, and says everything that a step can say."""

    agents = ("agent", "other")

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        self.num = 0
        observation = Observation((user(f"{task} {seed}"),), "replace", legal_actions=("a", "b"), info={"k": [1]})
        return Step(observations={"agent": observation}, success={"agent": None, "other": False})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        self.num += 1
        said = actions["agent"].text()
        if said == "fault":
            raise KeyError("oh no")
        if said == "hang":
            await asyncio.Event().wait()
        if said in ODD:
            return ODD[said]
        rewards = {"agent": (Reward(0.5, {"part": 0.5}, turn=0), Reward(float(self.num)))}
        return Step(rewards=rewards, terminated=True, stop_reason="said")

    async def close(self) -> None: ...


NAME = f"{Path(__file__)}:Rude"

ODD = {
    "no number": Step(rewards={"agent": Reward(math.nan)}, terminated=True),
    "no JSON": Step({"agent": Observation(info={"k": object()})}),
    "long": Step({"agent": Observation((user("x" * 2_000_000),))}),
}


class Judged(Rude):
    """Leaves it to a judge."""

    async def score(self, episode: Episode) -> Score:
        return Score(reward=float(self.num), success=True, annotations={"of": episode.id})


def test_a_step_says_there_what_it_says_here() -> None:
    async def both(environment: Any) -> list[Step]:
        first = await environment.reset({"n": 1}, seed=2)
        return [first, await environment.step({"agent": Message("assistant", "hi")})]

    with serving(NAME) as url:
        found = asyncio.run(both(RemoteEnvironment(url=url)))
    expected = asyncio.run(both(Rude()))
    assert found[0] == expected[0]
    assert found[1].rewards["agent"] == list(expected[1].rewards["agent"]) or found[1] == expected[1]
    assert (found[1].terminated, found[1].stop_reason) == (True, "said")


def test_sessions_are_isolated_and_asked_for_in_one_request() -> None:
    async def main(url: str) -> list[float]:
        made = [RemoteEnvironment(url=url) for _ in range(5)]
        await asyncio.gather(*(one.reset(seed=n) for n, one in enumerate(made)))
        for _ in range(2):
            await made[0].step({"agent": Message("assistant", "hi")})
        steps = await asyncio.gather(*(one.step({"agent": Message("assistant", "hi")}) for one in made))
        assert health(url)["sessions"] == 5
        await asyncio.gather(*(one.close() for one in made))
        return [step.rewards["agent"][1].value for step in steps]  # type: ignore[index]

    with serving(NAME) as url:
        assert asyncio.run(main(url)) == [3.0, 1.0, 1.0, 1.0, 1.0]
        assert health(url)["sessions"] == 0


def test_faults_come_back_as_faults_and_leave_others_alone() -> None:
    async def main(url: str) -> None:
        one, other = RemoteEnvironment(url=url), RemoteEnvironment(url=url)
        with pytest.raises(EnvironmentFault, match="reset the environment first"):
            await one.step({"agent": Message("assistant", "hi")})
        await asyncio.gather(one.reset(), other.reset())
        results = await asyncio.gather(
            one.step({"agent": Message("assistant", "fault")}),
            other.step({"agent": Message("assistant", "hi")}),
            return_exceptions=True,
        )
        assert "KeyError: 'oh no'" in str(results[0])
        assert isinstance(results[0], EnvironmentFault)
        assert isinstance(results[1], Step)

    with serving(NAME) as url:
        asyncio.run(main(url))


def test_whatever_one_session_does_the_others_of_its_request_have_their_answers() -> None:
    said = ["hi", "hang", "no number", "no JSON", "long"]

    async def main(url: str) -> None:
        made = [RemoteEnvironment(url=url) for _ in said]
        await asyncio.gather(*(one.reset() for one in made))
        steps = [
            asyncio.ensure_future(one.step({"agent": Message("assistant", text)}))
            for one, text in zip(made, said, strict=True)
        ]
        hanging = steps.pop(1)
        results = await asyncio.wait_for(asyncio.gather(*steps, return_exceptions=True), 10)
        assert [isinstance(result, Step) for result in results] == [True, True, False, True]
        assert math.isnan(results[1].rewards["agent"].value), "whoever records it says what is wrong"
        assert "object" in str(results[2])
        assert results[3] == ODD["long"]
        assert not hanging.done()
        await asyncio.wait_for(made[1].close(), 10)
        with pytest.raises(EnvironmentFault, match="closed meanwhile"):
            await asyncio.wait_for(hanging, 10)
        await asyncio.gather(*(one.close() for one in made))

    with serving(NAME) as url:
        asyncio.run(main(url))
        assert health(url)["sessions"] == 0


@pytest.mark.parametrize("name", ["Rude", "Judged"])
def test_what_an_environment_offers_is_offered_here(name: str) -> None:
    async def one(environment: Any) -> Episode:
        return await play_episode(environment, {a: RandomPolicy() for a in environment.agents}, Play("e", seed=3))

    with serving(f"{Path(__file__)}:{name}") as url:
        there, here = RemoteEnvironment(url=url), globals()[name]()
        assert [isinstance(there, kind) for kind in (HasTasks, HasScore)] == [False, name == "Judged"]
        assert asyncio.run(one(there)) == asyncio.run(one(here))


def test_there_are_only_so_many_sessions_and_idle_ones_are_closed() -> None:
    async def main(url: str) -> None:
        one, other = RemoteEnvironment(url=url), RemoteEnvironment(url=url)
        await one.reset()
        with pytest.raises(EnvironmentFault, match="all 1 sessions are taken"):
            await other.reset()
        deadline = time.monotonic() + 20
        while health(url)["sessions"] and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert health(url) == {"sessions": 0, "max_sessions": 1}
        with pytest.raises(EnvironmentFault, match=r"nobody asked for it for 1 seconds"):
            await one.step({"agent": Message("assistant", "hi")})

    with serving(NAME, max_sessions=1, idle_seconds=1.0) as url:
        asyncio.run(main(url))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError, match=r"nobody serves an environment there .* understudy serve"):
        RemoteEnvironment(url="http://127.0.0.1:9")
    with serving("math") as url:
        environment = RemoteEnvironment(url=url)
        with pytest.raises(ConfigError, match="Did you mean 'train'"):
            environment.tasks("trian")
        request = urllib.request.Request(f"{url}/batch", data=b"")
        for body in (b"nonsense", b"{}", b'[{"op": "jump"}]', b"[" * 10_000):
            request.data = body
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(request)
    for settings in ({"max_sessions": 0}, {"idle_seconds": 0.0}):
        with pytest.raises(ConfigError, match="both are above 0"):
            EnvironmentServer(NAME, {}, **settings)  # type: ignore[arg-type]

    async def asks(environment: RemoteEnvironment) -> None:
        with pytest.raises(EnvironmentFault, match="no answer"):
            await environment.reset()

    asyncio.run(asks(environment))


def test_the_command_serves_what_a_collection_plays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "understudy", "serve", "tools", "level=1", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("serving tools at http://127.0.0.1:")
    url = line.split()[3].rstrip(";")
    from understudy.cli.main import main

    given = ["environment.name=remote", f"environment.arguments.url={url}", "policy.name=random", "num_episodes=4"]
    assert main(["collect", *given, f"output_dir={tmp_path / 'x'}"]) == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
