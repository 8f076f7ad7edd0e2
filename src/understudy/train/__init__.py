"""Training: a thin loop over engines. The numerical core is `runner` (micro-batches), `loss`, and `attention`.

This package can be called: ``understudy.train(config, train_dataset=…)`` is `understudy.api.train`.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    """The verb and the package have one name, and Python binds a package to its name in its parent."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("understudy.api").train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
