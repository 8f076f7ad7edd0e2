"""The language of declared field mappings: what may stand in the YAML file, key by key.

A mapping says where a foreign row keeps its messages, tools, reward and the rest. Keys of a message that carry OpenAI's
names are read as such without being declared. What nothing declares is kept in the episode's metadata or the message's
extra keys, so a mapping that says little loses nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from understudy.config import ConfigModel
from understudy.errors import ConfigError

from .paths import compile_path

BRACES = re.compile(r"\{([^{}]+)\}")
"""A path in braces within a text."""


def _checked_path(text: str) -> str:
    try:
        compile_path(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


PathText = Annotated[str, AfterValidator(_checked_path)]
"""The text of a path."""


class Value(ConfigModel):
    """Where one value comes from: exactly one of `path`, `text` and `value`."""

    path: PathText | tuple[PathText, ...] | None = None
    """Path within the row (or within the message), or several: the first that holds something is taken."""

    text: str | None = None
    """Text with paths in braces, such as `{task_id}-{trial}`."""

    value: Any = None
    """A constant."""

    parse: Literal["json"] | None = None
    """Read the text that was found as JSON."""

    match: str | None = None
    """Regular expression that the text must match; its first group is the value."""

    join: str | None = None
    """Join the list of texts that was found with this separator."""

    values: dict[str, Any] | None = None
    """The value for each value that may be found (`true`, `1`, `null`, a text); one that is not listed is an error."""

    default: Any = None
    """The value when nothing was found."""

    @field_validator("text")
    @classmethod
    def _paths_in_braces(cls, text: str | None) -> str | None:
        for path in BRACES.findall(text or ""):
            _checked_path(path)
        return text

    @field_validator("match")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groups if pattern is not None else 1
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups < 1:
            raise ValueError("put what the value is into a group: '^([^/]+)/'")
        return pattern

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = self.model_fields_set & {"path", "text", "value"}
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, text and value, not {sorted(given) or 'none'}")
        return self


ValueSpec = PathText | tuple[PathText, ...] | Value
"""A path, several paths of which the first that holds something is taken, or a `Value`."""


class Calls(ConfigModel):
    """Where the tool calls of a message stand, and how one is written."""

    path: PathText | None = None
    """Path of the call or the list of calls within the message; without it the message itself is one call."""

    parse: Literal["json"] | None = None
    """Read the text at `path` as JSON."""

    name: ValueSpec = "name"
    """The tool's name, within the call."""

    arguments: ValueSpec = "arguments"
    """The arguments, within the call: an object, or JSON text, which is kept as it is."""

    id: ValueSpec = "id"
    """The call's id, within the call."""


class Sampled(ConfigModel):
    """The ids that the server saw and wrote for a message; they are used verbatim instead of rendering."""

    prompt_ids: ValueSpec
    """The ids of the whole prompt."""

    output_ids: ValueSpec
    """The ids that the model wrote, with the stop token where it wrote one."""

    logprobs: ValueSpec | None = None
    """Natural logarithms, one for each output id."""


class MessageFields(ConfigModel):
    """Where the fields of a message stand. A field that is not declared is read under OpenAI's name for it."""

    role: ValueSpec | None = None
    """Who speaks; see `roles`."""

    content: ValueSpec | None = None
    """The text, or the list of parts. An object or a number becomes JSON text."""

    reasoning: ValueSpec | None = None
    """The reasoning before the content."""

    name: ValueSpec | None = None
    """The speaker's name, or the tool's in its result."""

    tool_call_id: ValueSpec | None = None
    """The id of the call that this message answers."""

    calls: Calls | None = None
    """The tool calls."""

    weight: ValueSpec | None = None
    """How much an assistant message counts in training: a number from 0 up, or true or false."""

    reward: ValueSpec | None = None
    """The reward of an assistant message."""

    sampled: Sampled | None = None
    """Recorded token ids."""


class Messages(MessageFields):
    """What one item of the list of messages looks like."""

    roles: dict[str, str] = Field(default_factory=dict)
    """Role for each word that the source uses; other words stay as they are."""

    kind: ValueSpec | None = None
    """What says which of `kinds` an item is."""

    kinds: dict[str, MessageFields] = Field(default_factory=dict)
    """For each kind, the fields that differ. An item without a kind is read by the fields above."""

    merge: bool = False
    """Neighbouring assistant items are pieces of one message, as in OpenAI's Responses: a reasoning, a text, calls.
    An item whose place in the message is already taken begins a new one."""

    drop: tuple[PathText, ...] = ()
    """Paths within an item that are left out on purpose, instead of being kept in the message's extra keys."""

    @model_validator(mode="after")
    def _kind_and_kinds(self) -> Self:
        if (self.kind is None) != (not self.kinds):
            raise ValueError("kind and kinds belong together: kind says which of kinds an item is")
        return self


class Source(ConfigModel):
    """One place that holds messages. A list of lists holds one conversation for each call of the policy: what they
    share is joined, and only the last assistant message of each is trained."""

    path: PathText | tuple[PathText, ...]
    """Path of a list of messages, of one message, or of a text when `role` is given; several paths: the first that
    holds something is taken."""

    parse: Literal["json"] | None = None
    """Read the text that was found as JSON."""

    role: str | None = None
    """The role of the one message that a text makes."""

    context: int | Literal["all"] = 0
    """How many of the first messages (or all) are context: shown, and never trained."""

    optional: bool = False
    """A row may lack this place, and may even hold no message at all: it becomes an episode without turns."""

    @field_validator("context")
    @classmethod
    def _not_negative(cls, context: int | str) -> int | str:
        if isinstance(context, int) and context < 0:
            raise ValueError("a number of messages is 0 or more")
        return context


class Agents(ConfigModel):
    """Several agents in one conversation that all of them see. Each one that acts gets its own trajectory: its messages
    are the actions, those of all others are observed as user messages with the speaker's name."""

    speaker: ValueSpec
    """Who speaks, within a message. A message without a speaker is observed by all, in its own role."""

    observed: tuple[str, ...] = ()
    """Speakers that are no agents, such as a terminal or a person: they are only observed."""

    system: PathText | None = None
    """Path of an object in the row that holds each agent's own system prompt."""


class Tools(ConfigModel):
    """Where the tools stand: in the row, or in a file of their own."""

    path: PathText | tuple[PathText, ...] | None = None
    """Path within the row, or within the file: a list of tools, or JSON text of one."""

    file: str | None = None
    """A JSON file whose tools all rows share; relative to the mapping's folder, or to the working directory when it is
    given as an option."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.path is None and self.file is None:
            raise ValueError("give path (within the row), or file, or both (path within the file)")
        return self


class FieldMapping(ConfigModel):
    """A declared field mapping: from one row of a foreign source to one episode."""

    about: str = ""
    """What the source is, for readers."""

    messages: PathText | Source | tuple[PathText | Source, ...]
    """Where the messages stand; several places follow each other in one conversation."""

    message: Messages = Messages()
    """What one message looks like; by default OpenAI's."""

    tools: PathText | tuple[PathText, ...] | Tools | None = None
    """Where the tools stand."""

    agents: Agents | None = None
    """Several agents in one conversation."""

    id: ValueSpec | None = None
    """The episode's id; without it, one is made from the file's name and the row's number."""

    environment: ValueSpec | None = None
    """The environment's name."""

    task: ValueSpec | None = None
    """The task: any value."""

    seed: ValueSpec | None = None
    """The environment's seed, an integer."""

    split: ValueSpec | None = None
    """The name of the split."""

    agent: ValueSpec | None = None
    """The agent's name, when there is one agent."""

    policy: ValueSpec | None = None
    """What decided: the name of a model."""

    reward: ValueSpec | None = None
    """The episode's reward, a number."""

    success: ValueSpec | None = None
    """Whether the task was solved, true or false. Nothing else makes it so: it is never guessed from the reward."""

    stop_reason: ValueSpec | None = None
    """Why the episode ended."""

    error: ValueSpec | None = None
    """A fault of the environment or the machinery."""

    created_at: ValueSpec | None = None
    """When it was played, as ISO 8601 text."""

    drop: tuple[PathText, ...] = ()
    """Paths within the row that are left out on purpose, such as a second copy of the conversation, instead of being
    kept in the episode's metadata."""
