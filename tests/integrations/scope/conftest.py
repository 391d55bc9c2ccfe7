"""The plugin, loaded by its entry point into a plugin manager as Scope has one."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
import pytest

from tests.integrations.scope import contract

PROJECT = Path(__file__).parents[3] / "integrations/scope/pyproject.toml"


@pytest.fixture(scope="package")
def pipelines() -> Iterator[dict[str, Any]]:
    """Scope's registry after the plugin was loaded: its pipeline classes by id."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    ((name, target),) = project["entry-points"][contract.GROUP].items()
    with pytest.MonkeyPatch.context() as patch:
        for module, standin in contract.modules().items():
            patch.setitem(sys.modules, module, standin)
        manager = pluggy.PluginManager(contract.GROUP)
        manager.add_hookspecs(contract.HookSpecification)
        manager.register(EntryPoint(name, target, contract.GROUP).load(), name)
        manager.check_pending()
        found: list[Any] = []
        manager.hook.register_pipelines(register=found.append)
        yield {each.get_config_class().pipeline_id: each for each in found}
        for module in [module for module in sys.modules if module.partition(".")[0] == "personalive_scope"]:
            del sys.modules[module]
