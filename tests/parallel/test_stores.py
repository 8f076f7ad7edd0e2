"""Of several processes one claims, and all train on what it has claimed."""

from __future__ import annotations

from tests.parallel.test_ddp import finish, settings, start
from tests.training import metrics, train, weather_episodes
from understudy.stores import open_store


def test_two_processes_train_on_the_rows_that_one_has_claimed(base, tmp_path) -> None:
    pool = tmp_path / "pool.db"
    with open_store(pool, create=True) as store:
        store.add(weather_episodes()[:5])
        store.add(weather_episodes()[5:], split="validation")
    data = {"path": None, "store": {"path": str(pool), "max_trained_count": 1}}
    data["validation_store"] = {"path": str(pool)}
    steps = {"max_steps": 6, "eval_steps": 3}
    file = settings(tmp_path, base, "two", data=data, train=steps | {"per_device_train_batch_size": 1})
    output = finish(start(2, file))
    assert output.count("5 rows of") == 2, output  # claimed by one rank, and counted by one
    with open_store(pool) as store:
        counts = store.counts()
        assert counts.splits["train"].num_by_trained_count == {1: 5}
        assert counts.splits["validation"].num_by_trained_count == {0: 1}
        assert counts.leases == ()
    data["store"]["max_trained_count"] = 2
    train(base, tmp_path / "one", data=data, train=steps)
    for key in ("loss", "eval_loss"):
        for one, two in zip(metrics(tmp_path / "one", key), metrics(tmp_path / "two", key), strict=True):
            assert abs(one - two) <= 2e-5 * abs(one)
