"""The config of what is trained on; see `config` for the whole."""

from __future__ import annotations

from typing import Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from understudy.batching import LengthPolicy
from understudy.config import ConfigModel

Paths = str | tuple[str, ...]


class StoreSection(ConfigModel):
    """Rows of a store: a run claims them once at its start, nobody else gets them while it runs, and those that it has
    trained on are counted when it has finished."""

    path: str
    """The store's file; `understudy store add` makes one."""

    split: str = "train"
    """Claim only rows of this split."""

    max_trained_count: int | None = Field(None, ge=1)
    """Claim only rows that fewer runs than this have trained on; null for no limit."""

    retrained_interval_seconds: float | None = Field(None, gt=0)
    """Claim only rows that no run has finished training on within that time; null for no limit."""

    lease_seconds: float = Field(3600, ge=1)
    """How long the rows stay the run's own when it no longer says that it lives. It says so four times in that time."""


class ValidationStoreSection(ConfigModel):
    """Rows of a store to validate on: all of a split that are there when the run starts. They are neither claimed nor
    counted."""

    path: str
    """The store's file."""

    split: str = "validation"
    """Validate on the rows of this split."""


def _check_format(store: StoreSection | None, format: str) -> None:
    if store is not None and format != "auto":
        raise ValueError("format says how files are read, and a store holds episodes; leave it out")


class SourceSection(ConfigModel):
    """One named source of episodes: `path` or `store`."""

    path: Paths | None = None
    """File, folder or glob of rows, or a list of these (.json .jsonl .parquet, also .gz .zst)."""

    store: StoreSection | None = None
    """Rows of a store, in place of `path`."""

    format: str = "auto"
    """Format of the rows: a name, a mapping (file.yaml, file.py:function, options behind `?`), package.module:Class, or
    auto to tell it by the first rows. `{folder}` stands for the folder of `path`, where a mapping needs a file that
    lies beside the data."""

    ratio: float | None = Field(None, gt=0)
    """Share of this source in the mix, relative to the other sources' ratios. Give it to all sources or to none;
    without ratios an epoch is every episode once."""

    max_samples: int | None = Field(None, ge=1)
    """Read only this many episodes, from the beginning; null for all. Of a store, claim only this many."""

    agents: tuple[str, ...] | None = None
    """Train only the trajectories of these agents; null for all."""

    policies: tuple[str, ...] | None = None
    """Train only the trajectories of these policies, for agents that do not share a model; null for all."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.store is None):
            raise ValueError("give either path (files) or store")
        _check_format(self.store, self.format)
        return self


class DataSection(ConfigModel):
    """What is trained on: one source (`path` or `store`), or several that are mixed (`sources`)."""

    path: Paths | None = Field(None, validation_alias=AliasChoices("data_path", "train_file"))
    """The one source; see `sources.N.path`."""

    format: str = "auto"
    """Format of the one source; see `sources.N.format`."""

    store: StoreSection | None = None
    """The one source where it is a store, in place of `path`."""

    sources: dict[str, SourceSection] | None = None
    """Several sources by name, in place of `path`. Losses are reported for each of them too."""

    temperature: float | None = Field(None, ge=1)
    """In place of ratios: each source's share is in proportion to its number of trajectories, to the power of
    1 / temperature (temperature-scaled mixing, arXiv:1910.10683, section 3.5.2). 1 is in proportion to the sizes; the
    higher, the more equal."""

    max_samples: int | None = Field(None, ge=1)
    """Read only this many episodes of each source that does not say otherwise."""

    agents: tuple[str, ...] | None = None
    """Train and validate only on the trajectories of these agents, in each source that does not say otherwise; null for
    all."""

    policies: tuple[str, ...] | None = None
    """Train and validate only on the trajectories of these policies, in each source that does not say otherwise; null
    for all."""

    skip_bad: bool = False
    """Pass over rows that cannot be read, and count them; otherwise the first one stops the run."""

    max_length: int | None = Field(None, ge=2, validation_alias=AliasChoices("cutoff_len", "max_seq_length"))
    """Most tokens from the beginning of a context through the last trained token; null for no limit."""

    max_length_policy: LengthPolicy = "error"
    """What is done with what is longer. `error` stops, `drop` leaves the whole trajectory out, `cut_turns` leaves out
    the turns that do not fit as a whole. Always counted."""

    validation_split: float = Field(0.0, ge=0, lt=1)
    """Share of the episodes of each source that is held out for validation, drawn with the seed."""

    split_by: tuple[str, ...] = ("id",)
    """Episodes that agree in all of these stay on one side of the split: `id`, `task`, `environment`, `seed` or
    `metadata.KEY`."""

    validation_path: Paths | None = Field(None, validation_alias="validation_file")
    """Files to validate on, in place of `validation_split`. No folder or pattern to train on may lead to
    one of them; to train and validate on the same file, write the same path for both."""

    validation_format: str = "auto"
    """Format of `validation_path`."""

    validation_store: ValidationStoreSection | None = None
    """Rows of a store to validate on, in place of `validation_split`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.store is not None:
            if self.path is not None or self.sources is not None:
                raise ValueError("give one of path (files), store and sources (several of these)")
            _check_format(self.store, self.format)
        if self.path is not None and self.sources is not None:
            raise ValueError("give either path (one source) or sources (several), not both")
        if self.sources is not None:
            if not self.sources:
                raise ValueError("sources is empty")
            without = [name for name, source in self.sources.items() if source.ratio is None]
            if without and len(without) < len(self.sources):
                raise ValueError(f"sources {', '.join(without)} have no ratio while others do; give all or none")
            if self.temperature is not None and not without:
                raise ValueError("give either ratios of the sources or temperature, not both")
        elif self.temperature is not None and (self.path is not None or self.store is not None):
            raise ValueError("temperature is for several sources; give sources in place of path, or leave it out")
        return self

    @model_validator(mode="after")
    def _validated_in_one_way(self) -> Self:
        if self.validation_path is not None and self.validation_split:
            raise ValueError("give either validation_path or validation_split, not both")
        if self.validation_store is not None and (self.validation_path is not None or self.validation_split):
            raise ValueError("give one of validation_store, validation_path and validation_split")
        if self.stores and self.validation_split:
            raise ValueError(
                "validation_split would hold out rows of a store that are then counted as trained; add rows to its "
                "split 'validation', and give validation_store"
            )
        return self

    @field_validator("split_by")
    @classmethod
    def _known_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        plain = ("id", "task", "environment", "seed")
        for key in keys:
            if key not in plain and not key.startswith("metadata."):
                raise ValueError(f"{key!r} is none of {', '.join(plain)}, metadata.KEY")
        if not keys:
            raise ValueError("name at least one")
        return keys

    def by_name(self) -> dict[str, SourceSection]:
        """Return the sources to train on; the one source is called `data`. Empty when the caller brings the data."""
        if self.sources is not None:
            found = self.sources
        elif self.path is not None or self.store is not None:
            found = {"data": SourceSection(path=self.path, format=self.format, store=self.store)}
        else:
            found = {}
        defaults = {"max_samples": self.max_samples, "agents": self.agents, "policies": self.policies}
        return {
            name: s.model_copy(update={key: value for key, value in defaults.items() if getattr(s, key) is None})
            for name, s in found.items()
        }

    @property
    def holds_out(self) -> bool:
        """Whether there is something to validate on."""
        return self.validation_split > 0 or self.validation_path is not None or self.validation_store is not None

    @property
    def stores(self) -> list[StoreSection]:
        """The stores that rows to train on are claimed of."""
        found = [self.store, *(source.store for source in (self.sources or {}).values())]
        return [store for store in found if store is not None]
