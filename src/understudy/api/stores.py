"""What a run trains on from stores: claimed once at its start, kept while it runs, acknowledged when it has finished.

Which rows a run has is decided before anything is rendered and never changes, so the plan of its steps stays a pure
function of data, config and seed, and a run that was killed goes on with exactly its rows. ``store.json`` in the run's
folder says under which name it has claimed them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, StoreError
from understudy.runs import RunFolder, write_atomically
from understudy.stores import Claim, LeaseKeeper, LeaseLost, Store, open_store
from understudy.stores.times import show_time
from understudy.train.data_config import DataSection, SourceSection, StoreSection, ValidationStoreSection
from understudy.types import Episode

if TYPE_CHECKING:
    from understudy.train.inputs import RunInputs
    from understudy.train.run import TrainResult

NOTE = "store.json"

log = logging.getLogger("understudy.train")


@dataclass(frozen=True, slots=True)
class Note:
    """What a run's folder says about the rows that it has claimed.

    Args:
        claims: of each source: the ``owner`` under whose name its rows are claimed, the ``path`` of the store, and what
            was to be claimed (``selection``).
        validation_through: the last row that is validated on; None where no store is.
    """

    claims: dict[str, dict[str, Any]]
    validation_through: int | None

    @classmethod
    def read(cls, folder: str | Path) -> Note | None:
        """Return the note of a run's folder; None where it has none.

        Raises:
            ConfigError: it cannot be read.
        """
        path = Path(folder) / NOTE
        try:
            value: dict[str, Any] = json.loads(path.read_bytes())
            return cls(**value)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); start anew in another output_dir") from error

    def write(self, folder: Path) -> None:
        """Write it, as a whole or not at all."""
        write_atomically(folder / NOTE, json.dumps(asdict(self), indent=2) + "\n")

    def release(self) -> None:
        """Let go what is claimed; where a store has gone, there is nothing to let go."""
        for name, claim in self.claims.items():
            with contextlib.suppress(StoreError), open_store(claim["path"]) as store:
                num_rows = store.release(claim["owner"])
                if num_rows:
                    log.info("%s: %s rows of %s are free again", name, f"{num_rows:,}", claim["path"])


class RunStores:
    """The stores that a run's config names. Until the run has claimed its rows, it reads those that it could claim.

    Raises:
        StoreError: one of them cannot be opened.
        ConfigError: rows would be both trained and validated on.
    """

    def __init__(self, config: DataSection) -> None:
        sections = config.by_name()
        self._sources = {name: (section, section.store) for name, section in sections.items() if section.store}
        self._validation = config.validation_store
        self._note: Note | None = None
        self._rows: dict[str, tuple[int, ...]] = {}
        self._validation_through: int | None = None
        self._keepers: list[LeaseKeeper] = []
        self._used: defaultdict[str, set[int]] = defaultdict(set)
        self._unused: defaultdict[str, set[int]] = defaultdict(set)
        trained = [store for _, store in self._sources.values()]
        for store in trained:
            open_store(store.path).close()
        if self._validation is not None:
            open_store(self._validation.path).close()
            _check_sides(trained, self._validation)

    def __bool__(self) -> bool:
        return bool(self._sources or self._validation)

    def episodes(self, name: str) -> Iterator[tuple[str, Episode]]:
        """Yield a source's rows with their places.

        Raises:
            StoreError: none is free, or one cannot be read.
        """
        section, settings = self._sources[name]
        with open_store(settings.path) as store:
            rows = self._rows[name] if name in self._rows else store.free(**_selection(section, settings))
            if not rows:
                raise _nothing_free(store, settings)
            for number, episode in store.read(rows):
                yield f"{settings.path}:{number}", episode

    def validation(self) -> Iterator[tuple[str, Episode]]:
        """Yield the rows to validate on, with their places.

        Raises:
            StoreError: there is none, or one cannot be read.
        """
        assert self._validation is not None
        path, split = self._validation.path, self._validation.split
        with open_store(path) as store:
            rows = store.rows(split, through=self._validation_through)
            if not rows:
                raise StoreError(
                    store.counts().missing(split), file=path, mend="add some: understudy store add --split"
                )
            for number, episode in store.read(rows):
                yield f"{path}:{number}", episode

    def share(self) -> None:
        """Tell all ranks what the main one has claimed; every rank calls it."""
        if self:
            from understudy.train.distributed import from_main

            self._rows, self._validation_through = from_main((self._rows, self._validation_through))

    def should_stop(self) -> bool:
        """Return whether a lease is lost, so that others train on rows of this run."""
        return any(keeper.lost is not None for keeper in self._keepers)

    def hold(self, folder: RunFolder, earlier: Note | None, train: Callable[[RunFolder], TrainResult]) -> TrainResult:
        """Train on claimed rows, on the main rank.

        Args:
            earlier: the note that the folder had before. A run that has no checkpoint to go on with goes on with its
                rows only where it still wants and holds them; what else stands there is let go.
            train: trains, and tells `use` what it has trained on.

        Raises:
            StoreError: nothing is free, or rows were lost to others.
        """
        goes_on = folder.is_resumed and _has_checkpoint(folder)
        if earlier is not None and not goes_on and not (folder.is_resumed and self._wants(earlier)):
            earlier.release()
            earlier = None
        if not self:
            return train(folder)
        try:
            self._claim(folder, earlier, goes_on=goes_on)
        except StoreError:
            folder.restore_config()
            raise
        self.share()
        try:
            result = self._train(folder, train)
        except BaseException:
            if self._note is not None and not _has_checkpoint(folder):
                self._note.release()
            raise
        if result.signal is None:
            self._acknowledge(folder)
        elif self.should_stop():
            raise next(_ended(keeper.lost, folder) for keeper in self._keepers if keeper.lost is not None)
        elif self._sources:
            log.info("the rows that this run has claimed stay its own until their lease runs out; --resume renews it")
        return result

    def _train(self, folder: RunFolder, train: Callable[[RunFolder], TrainResult]) -> TrainResult:
        """Train while the leases are renewed."""
        assert self._note is not None
        with contextlib.ExitStack() as stack:
            self._keepers = [
                stack.enter_context(
                    LeaseKeeper(settings.path, self._note.claims[name]["owner"], lease_seconds=settings.lease_seconds)
                )
                for name, (_, settings) in self._sources.items()
            ]
            return train(folder)

    def _claim(self, folder: RunFolder, earlier: Note | None, *, goes_on: bool) -> None:
        """Claim every source's rows, or those that the run has claimed before."""
        note = self._new_note(folder) if earlier is None else self._moved(earlier)
        note.write(folder.path)  # before anything is claimed, so that whatever is can be found again
        self._note, self._validation_through = note, note.validation_through
        for name, (section, settings) in self._sources.items():
            owner = note.claims[name]["owner"] if name in note.claims else ""
            lease_seconds = settings.lease_seconds
            with open_store(settings.path) as store:
                claim = None
                if earlier is not None or goes_on:
                    claim = _claimed_before(store, owner, lease_seconds, folder, goes_on=goes_on)
                if claim is None:
                    claim = store.claim(owner, **_selection(section, settings), lease_seconds=lease_seconds)
                if not claim.rows:
                    note.release()
                    raise _nothing_free(store, settings)
            self._rows[name] = claim.rows
            until = show_time(claim.lease_until)
            log.info("%s: %s rows of %s are this run's until %s", name, f"{len(claim.rows):,}", settings.path, until)

    def _new_note(self, folder: RunFolder) -> Note:
        """Return a note with names that no other run has."""
        owner = f"{platform.node()}:{folder.path.resolve()}#{uuid.uuid4().hex[:8]}"
        claims = {
            name: {
                "owner": f"{owner}/{name}" if len(self._sources) > 1 else owner,
                "path": settings.path,
                "selection": _selection(section, settings),
            }
            for name, (section, settings) in self._sources.items()
        }
        through = None
        if self._validation is not None:
            with open_store(self._validation.path) as store:
                through = max(store.rows(self._validation.split), default=0)
        return Note(claims, through)

    def _moved(self, note: Note) -> Note:
        """Return a note with the places where the stores are now."""
        paths = {name: {"path": settings.path} for name, (_, settings) in self._sources.items()}
        return replace(note, claims={name: claim | paths.get(name, {}) for name, claim in note.claims.items()})

    def _wants(self, note: Note) -> bool:
        """Return whether a note has claimed what is to be claimed now."""
        wanted = {name: (of[1].path, _selection(*of)) for name, of in self._sources.items()}
        return wanted == {name: (claim["path"], claim["selection"]) for name, claim in note.claims.items()}

    def use(self, inputs: RunInputs, num_steps: int) -> None:
        """Take note of the rows that a training of so many steps has drawn, and of those that it has not come to.

        Rows that give nothing to train on (refused, too long, of other agents) are neither; they count as used.
        """
        from understudy.train.launch import world_size
        from understudy.train.setup import make_planner, num_data_ranks

        settings = inputs.config.train
        _, sampler, _ = make_planner(inputs.data, settings, num_data_ranks(settings, world_size()))
        steps = range(min(num_steps, sampler.steps_per_epoch))  # an epoch draws every trajectory
        drawn = {pair for step in steps for pair in sampler.draw(step)}
        for source, found in enumerate(inputs.data.train):
            if found.name not in self._sources:
                continue
            place = re.compile(re.escape(self._sources[found.name][1].path) + r":(\d+)")
            for index, example in enumerate(found.examples):
                match = place.match(example.name)
                assert match is not None
                side = self._used if (source, index) in drawn else self._unused
                side[found.name].add(int(match[1]))

    def _acknowledge(self, folder: RunFolder) -> None:
        assert self._note is not None
        for name, (_, settings) in self._sources.items():
            unused = self._unused[name] - self._used[name]
            used = set(self._rows[name]) - unused
            with open_store(settings.path) as store:
                try:
                    num_counted = store.acknowledge(self._note.claims[name]["owner"], used)
                except LeaseLost as error:
                    raise _ended(error, folder) from error
            left = f"; {len(unused):,} that it did not come to are free again" if unused else ""
            log.info("%s: %s rows of %s are counted as trained%s", name, f"{num_counted:,}", settings.path, left)


def _check_sides(trained: Sequence[StoreSection], validated: ValidationStoreSection) -> None:
    """Refuse a split of a store that would be trained on and validated on, whatever the store is called."""
    for store in trained:
        same_store = store.path == validated.path or os.path.samefile(store.path, validated.path)
        if same_store and store.split == validated.split:
            raise ConfigError(
                f"data.validation_store: the split {validated.split!r} of {validated.path} would be trained on too; "
                "validate on another split: understudy store add --split validation"
            )


def _selection(section: SourceSection, settings: StoreSection) -> dict[str, Any]:
    """Return what decides which rows a source claims, as `Store.claim` takes it."""
    return {
        "split": settings.split,
        "limit": section.max_samples,
        "max_trained_count": settings.max_trained_count,
        "retrained_interval_seconds": settings.retrained_interval_seconds,
    }


def _has_checkpoint(folder: RunFolder) -> bool:
    """Return whether there is something to go on with, of the run or of one of its policies."""
    return any(next(folder.path.glob(pattern), None) for pattern in ("checkpoint-*", "*/checkpoint-*"))


def _claimed_before(
    store: Store, owner: str, lease_seconds: float, folder: RunFolder, *, goes_on: bool
) -> Claim | None:
    """Return what the run has claimed before; None where it may claim anew, because nothing was trained on it.

    Raises:
        LeaseLost: others have taken rows of it.
        StoreError: the store does not know it.
    """
    try:
        claim = store.resume(owner, lease_seconds=lease_seconds)
    except LeaseLost as error:
        if goes_on:
            raise _ended(error, folder) from error
        store.release(owner)
        return None
    if claim is None and goes_on:
        raise StoreError(
            f"the store knows of no rows that the run in {folder.path} has claimed",
            file=store.address,
            mend="go on with the data that the run began with, or start anew in another output_dir",
        )
    return claim


def _ended(error: LeaseLost, folder: RunFolder) -> LeaseLost:
    """Return the error of a run that cannot go on or be counted, because others train on rows of it."""
    return LeaseLost(
        error.reason,
        file=error.file,
        mend=f"nothing of the run in {folder.path} is counted as trained, and it cannot be gone on with: start anew in "
        "another output_dir, which claims rows that are free; a longer lease_seconds lets a run wait longer",
    )


def _nothing_free(store: Store, settings: StoreSection) -> StoreError:
    """Return the error of a store that has nothing for a run, which says why."""
    counts = store.counts()
    found = counts.splits.get(settings.split)
    if found is None:
        mend = "name one of these in split, or add rows: understudy store add"
        return StoreError(counts.missing(settings.split), file=store.address, mend=mend)
    reasons = []
    if found.num_leased:
        lease = max((one for one in counts.leases if one.split == settings.split), key=lambda one: one.lease_until)
        until = show_time(lease.lease_until)
        reasons.append(f"{found.num_leased:,} are held by others, such as {lease.owner} until {until}")
    if settings.max_trained_count is not None:
        full = sum(n for count, n in found.num_by_trained_count.items() if count >= settings.max_trained_count)
        reasons.append(f"{full:,} were trained {settings.max_trained_count:,} times or more (max_trained_count)")
    if settings.retrained_interval_seconds is not None:
        reasons.append(f"others were trained within {settings.retrained_interval_seconds:g} seconds")
    return StoreError(
        f"of {found.num_rows:,} rows of the split {settings.split!r} none is free: {'; '.join(reasons)}",
        file=store.address,
        mend="add rows, wait, or raise the limit; understudy store show says who holds rows, and store release frees "
        "those of a run that is dead",
    )
