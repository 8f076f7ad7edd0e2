"""What of a run's config follows from other keys of it.

The stages of a run stand in folders of one folder, and read what the one before has written. So paths, the environment
of the evaluation and the model that is evaluated follow, and need not be given. A given value that differs from what
follows is refused: it would quietly take a stage out of the run.

All of this works on plain mappings, before they are checked, so whatever is no section is left for the check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from understudy.api.train import TINY_BASE
from understudy.collect import CollectConfig
from understudy.config import ConfigModel
from understudy.models.export import FINAL
from understudy.rendering import ServerProfile
from understudy.train.config import ObjectiveSection, RenderingSection

from .loop_config import DemonstrationsSection

STAGES = ("collect", "curate", "train", "evaluate")
"""The stages in the order in which they run, each also the name of its section, its folder and its command."""

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """A value that follows from other keys.

    Args:
        keys: the way to it from the top of the config.
        value: the value; None where the key must not be given.
        source: what it follows from, in words.
        is_default: the user may give another value.
        is_place: it says where something lies in the run's folder, and so decides nothing else.
    """

    keys: Keys
    value: Any
    source: str
    is_default: bool = False
    is_place: bool = False

    @property
    def key(self) -> str:
        """The dotted key."""
        return ".".join(self.keys)


def fill_in(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's keys with what follows from the others.

    Raises:
        ValidationError: a key contradicts what follows; names all of them.
    """
    out: dict[str, Any] = _copy(value)
    refused: list[InitErrorDetails] = []
    for found in following(out):
        given = _get(out, found.keys)
        if given is _ABSENT:
            if found.value is not None:
                _set(out, found.keys, _copy(found.value))
        elif not (given is _UNREACHABLE or found.is_default or _same(given, found.value)):
            refused.append(_refusal(found, given))
    if refused:
        raise ValidationError.from_exception_data("RunConfig", refused)
    return out


def holding(value: Mapping[str, Any]) -> list[Following]:
    """Return what follows and is as it follows, in a config that is filled in."""
    return [found for found in following(value) if _same(_get(value, found.keys), found.value)]


def drop(value: dict[str, Any], keys: Keys) -> None:
    """Delete a value, and the sections that it leaves empty below the stage's own."""
    parents = [value]
    for key in keys[:-1]:
        parents.append(parents[-1][key])
    for depth in range(len(keys) - 1, 0, -1):
        if depth == len(keys) - 1 or not parents[depth][keys[depth]]:
            del parents[depth][keys[depth]]


def following(value: Mapping[str, Any]) -> Iterator[Following]:
    """Yield what follows from the other keys of a config that may still have faults.

    Each is to be filled in before the next is asked for.
    """
    output_dir = value.get("output_dir")
    folder = Path(output_dir) if isinstance(output_dir, str) else Path()
    there = [name for name in STAGES if isinstance(value.get(name), Mapping)]
    for name in there:
        yield Following((name, "output_dir"), str(folder / name), "output_dir", is_place=True)
        seed = (name, "train", "seed") if name == "train" else (name, "seed")
        yield Following(seed, value.get("seed", 0), "seed", is_default=True)
    previous = _section(value, "previous")
    if isinstance(_section(value, "loop").get("policy"), Mapping):
        yield Following(("loop", "policy", "name"), "local", "that a loop plays what it has trained", is_default=True)
    if "collect" in there:
        yield from _of_player(value, previous)
    if "curate" in there:
        yield from _of_curate(value, previous, folder)
    if "train" in there:
        yield from _of_train(value, folder, there)
    if "evaluate" in there:
        yield from _of_earlier_evaluation(value, previous)
        is_actor = "train" not in there or _objective(value["train"]) != "world_model"
        plays = is_actor or any(key in value["evaluate"] for key in ("policy", "policies"))
        if "collect" in there and plays:
            yield Following(("evaluate", "environment"), value["collect"].get("environment"), "collect.environment")
            yield Following(("evaluate", "max_turns"), _max_turns(value), "collect.max_turns", is_default=True)
        if "train" in there:
            if is_actor:
                yield from _of_trained_policies(value, folder)
            yield from _of_held_out(value, folder, is_actor)


def _of_player(value: Mapping[str, Any], previous: Mapping[str, Any]) -> Iterator[Following]:
    """Yield who collects where that is the model: in an iteration, and at the beginning of a loop that has one."""
    policy: Keys = ("collect", "policy")
    train = _section(value, "train")
    if previous.get("player") is not None:
        player = previous["player"]
        yield Following((*policy, "arguments", "model"), player, "the iteration before", is_place=True)
        if _section(_section(value, "collect"), "policy").get("name") == "local":
            for name, argument in _asked(train).items():
                yield Following((*policy, "arguments", name), argument, "train", is_default=True)
    base = _section(train, "model").get("path")
    if value.get("iterations") is not None and base is not None and not _section(value, "collect").get("policies"):
        given = _copy(_section(_section(value, "loop"), "policy"))
        name = given.get("name", "local")
        arguments = {**(_asked(train) if name == "local" else {}), **(given.get("arguments") or {}), "model": base}
        yield Following(policy, {"name": name, "arguments": arguments}, "train.model.path", is_default=True)


def _of_curate(value: Mapping[str, Any], previous: Mapping[str, Any], folder: Path) -> Iterator[Following]:
    """Yield what is chosen from."""
    collect = value.get("collect")
    if isinstance(collect, Mapping):
        yield Following(("curate", "path"), str(folder / "collect"), "the collect stage", is_place=True)
        if value["curate"].get("hindsight"):
            yield Following(("curate", "environment"), collect.get("environment"), "collect.environment")
    if previous.get("replay"):
        yield Following(("curate", "replay_path"), list(previous["replay"]), "the iterations before", is_place=True)


def _of_earlier_evaluation(value: Mapping[str, Any], previous: Mapping[str, Any]) -> Iterator[Following]:
    """Yield what an iteration is compared with, and what is evaluated where nothing is trained."""
    if previous.get("evaluation") is not None:
        earlier = previous["evaluation"]
        yield Following(("evaluate", "baseline"), earlier, "the iteration before", is_default=True, is_place=True)
    if not isinstance(value.get("train"), Mapping) and previous.get("player") is not None:
        policy: Keys = ("evaluate", "policy")
        player = previous["player"]
        yield Following((*policy, "arguments", "model"), player, "the best iteration", is_place=True)
        arguments = _get(value, (*policy, "arguments"))
        if isinstance(arguments, Mapping) and previous.get("before") is not None:
            before = {"name": "local", "arguments": {**arguments, "model": previous["before"]}}
            yield Following(("evaluate", "baseline"), before, "the first model", is_default=True, is_place=True)


def _of_train(value: Mapping[str, Any], folder: Path, there: list[str]) -> Iterator[Following]:
    """Yield what training reads and starts from."""
    yield Following(("train", "resume"), "auto", "that a run goes on where it was")
    previous = _section(value, "previous")
    if previous.get("model") is not None:
        yield Following(("train", "model", "path"), previous["model"], "the iteration before", is_place=True)
    data: Keys = ("train", "data")
    chosen = held_out = None
    source = "the collect stage"
    if "curate" in there:
        kind = value["curate"].get("output_format", "jsonl")
        chosen, source = str(folder / "curate" / f"train.{kind}"), "the curate stage"
        held_out = str(folder / "curate" / f"validation.{kind}") if value["curate"].get("validation_split") else None
    elif "collect" in there:
        chosen = str(folder / "collect")
    elif previous.get("data") is not None:
        chosen, held_out, source = previous["data"], previous.get("validation"), "the iteration before"
    yield from _of_sources(value, chosen, source)
    if held_out is not None:
        yield Following((*data, "validation_path"), held_out, "curate.validation_split", is_place=True)
    if "collect" in there and isinstance(value["train"].get("evaluation"), Mapping):
        playing: Keys = ("train", "evaluation")
        environment = value["collect"].get("environment")
        yield Following((*playing, "environment"), environment, "collect.environment", is_default=True)
        yield Following((*playing, "max_turns"), _max_turns(value), "collect.max_turns", is_default=True)


def _of_sources(value: Mapping[str, Any], chosen: str | None, source: str) -> Iterator[Following]:
    """Yield what is trained on: what was chosen, alone or mixed with demonstrations."""
    data: Keys = ("train", "data")
    mixed = _section(value, "demonstrations")
    if mixed.get("path") is None:
        if chosen is not None:
            yield Following((*data, "path"), chosen, source, is_place=True)
            for other in ("sources", "store"):
                yield Following((*data, other), None, "the stages before, whose episodes are trained on")
        return
    share = mixed.get("share", DemonstrationsSection.model_fields["share"].default)
    given = "demonstrations"
    if chosen is not None:
        yield Following((*data, "sources", "collected", "path"), chosen, source, is_place=True)
        if isinstance(share, int | float):
            yield Following((*data, "sources", "collected", "ratio"), 1 - share, "demonstrations.share")
    yield Following((*data, "sources", given, "path"), mixed["path"], "demonstrations.path", is_place=True)
    yield Following((*data, "sources", given, "ratio"), share, "demonstrations.share")
    if mixed.get("format") is not None:
        yield Following((*data, "sources", given, "format"), mixed["format"], "demonstrations.format")


def _of_trained_policies(value: Mapping[str, Any], folder: Path) -> Iterator[Following]:
    """Yield who plays once models are trained: they, against themselves before, asked as they were trained."""
    train = value["train"]
    policies = train.get("policies")
    if not isinstance(policies, Mapping):
        yield from _played(value, ("policy",), ("baseline",), train, folder / "train")
        return
    for name, section in policies.items():
        given = section if isinstance(section, Mapping) else {}
        agents = given.get("agents") or ([] if given.get("policies") else [name])
        trained = {**train, **({"model": given["model"]} if isinstance(given.get("model"), Mapping) else {})}
        for agent in agents:
            before: Keys = ("baseline_policies", agent)
            yield from _played(value, ("policies", agent), before, trained, folder / "train" / name)


def _played(
    value: Mapping[str, Any], policy: Keys, before: Keys, train: Mapping[str, Any], folder: Path
) -> Iterator[Following]:
    """Yield a policy of the evaluation that plays a trained model, and what plays in its place in the baseline.

    Args:
        policy, before: where the two stand in the evaluation's config.
        train: the config of the model's training.
        folder: of the model's run.
    """
    model = _section(train, "model")
    policy = ("evaluate", *policy)
    yield Following((*policy, "name"), "local", "the train stage")
    yield Following((*policy, "arguments", "model"), str(folder / FINAL), "the train stage", is_place=True)
    for name, argument in _asked(train).items():
        yield Following((*policy, "arguments", name), argument, "the train stage", is_default=True)
    arguments = _get(value, (*policy, "arguments"))
    if isinstance(arguments, Mapping):
        base = model["path"] if model.get("path") is not None else str(folder / TINY_BASE)
        baseline = {"name": "local", "arguments": {**arguments, "model": base}}
        yield Following(("evaluate", *before), baseline, "train.model", is_default=True, is_place=True)


def _asked(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by which policy `local` asks a model as it is trained."""
    model, rendering, settings = (_section(train, name) for name in ("model", "rendering", "train"))
    defaults = _copy(RenderingSection().model_dump(mode="json"))
    profile = {key: item for key, item in rendering.items() if key in ServerProfile.model_fields}
    asked = {
        "profile": {key: item for key, item in profile.items() if _copy(item) != defaults[key]},
        "chat_template": rendering.get("chat_template"),
        "trust_remote_code": model.get("trust_remote_code"),
        "device": settings.get("device") if settings.get("device") != "auto" else None,
    }
    return {name: argument for name, argument in asked.items() if argument}


def _of_held_out(value: Mapping[str, Any], folder: Path, is_actor: bool) -> Iterator[Following]:
    """Yield what is measured on the episodes that are held out from training.

    Args:
        is_actor: the model is played too; else it has to be named here.
    """
    train = value["train"]
    held_out, objective = _section(train, "data").get("validation_path"), _section(train, "objective")
    if held_out is None:
        return
    measured = {"loss": {"rendering": train.get("rendering"), "objective": objective}}
    if _objective(train) in ("world_model", "combined"):
        roles = objective.get("observation_roles")
        measured["world_model"] = {"rendering": train.get("rendering"), "observation_roles": roles}
    for name, settings in measured.items():
        source = "train.data.validation_path"
        section: Keys = ("evaluate", name)
        yield Following((*section, "data_path"), held_out, source, is_default=True, is_place=True)
        if not is_actor:
            final = str(folder / "train" / FINAL)
            yield Following((*section, "model"), final, "the train stage", is_default=True, is_place=True)
        for key, setting in settings.items():
            if setting:
                yield Following((*section, key), setting, f"train.{key}", is_default=True)


def _objective(train: Mapping[str, Any]) -> Any:
    return _section(train, "objective").get("name", ObjectiveSection.model_fields["name"].default)


def _max_turns(value: Mapping[str, Any]) -> Any:
    return value["collect"].get("max_turns", CollectConfig.model_fields["max_turns"].default)


def _section(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = value.get(name)
    return section if isinstance(section, Mapping) else {}


_ABSENT = object()
_UNREACHABLE = object()


def _refusal(found: Following, given: Any) -> InitErrorDetails:
    reason = f"follows from {found.source}"
    reason += f" and is {found.value!r}, got {given!r}; leave it out" if found.value is not None else "; leave it out"
    kind = PydanticCustomError("value_error", "{reason}", {"reason": reason})
    return InitErrorDetails(type=kind, loc=found.keys, input=given)


def _get(value: Any, keys: Keys) -> Any:
    """Return the value at a way of keys; `_ABSENT` where it may be put, `_UNREACHABLE` where the way is no section."""
    for key in keys:
        if not isinstance(value, Mapping):
            return _UNREACHABLE
        if key not in value:
            return _ABSENT
        value = value[key]
    return value


def _set(value: dict[str, Any], keys: Keys, new: Any) -> None:
    for key in keys[:-1]:
        value = value.setdefault(key, {})
    value[keys[-1]] = new


def _copy(value: Any) -> Any:
    """Return plain mappings and lists; of a config object only what was given, so that the rest can still follow."""
    if isinstance(value, ConfigModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _same(given: Any, value: Any) -> bool:
    """Return whether a given value says the same: paths may be written in several ways, empty arguments left out."""
    if isinstance(given, str) and isinstance(value, str):
        return Path(given) == Path(value)
    if isinstance(given, Mapping) and isinstance(value, Mapping):
        ours, theirs = ({key: item for key, item in one.items() if item != {}} for one in (given, value))
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)
    return bool(given == value)
