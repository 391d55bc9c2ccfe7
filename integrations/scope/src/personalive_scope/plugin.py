"""The plugin's hooks; Scope loads this module by its entry point."""

from __future__ import annotations

from collections.abc import Callable

from scope.core.plugins.hookspecs import hookimpl

from personalive.pipelines import registry


@hookimpl  # type: ignore[untyped-decorator]
def register_pipelines(register: Callable[[type], None]) -> None:
    """Register every pipeline that PersonaLive finds, those of other packages too."""
    from personalive_scope.pipeline import make_scope_pipeline

    for name, pipeline in registry.all_pipelines().items():
        register(make_scope_pipeline(name, pipeline))
