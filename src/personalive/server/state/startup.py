"""Load what the settings name at the start: a pipeline, and a portrait to animate."""

from __future__ import annotations

import asyncio
import logging

from personalive.errors import InputError, PersonaLiveError
from personalive.media import read_image
from personalive.pipelines import registry
from personalive.pipelines.parameters import build_parameters
from personalive.server.settings import Settings
from personalive.server.state.hardware import resolve_gpus
from personalive.server.state.load_plan import list_path_parameters
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_store import ReferenceStore
from personalive.server.telemetry import logs


def check_settings(settings: Settings) -> None:
    """Raise a `PersonaLiveError` for settings that cannot be loaded, before the server starts."""
    resolve_gpus(settings.gpus)
    check_load_parameters(settings)
    if settings.pipeline is None:
        return
    pipeline = registry.choose_pipeline(settings.pipeline, settings.load_params).pipeline
    build_parameters(pipeline.load_parameters, settings.load_params)
    if settings.reference is not None:
        read_image(settings.reference)


def check_load_parameters(settings: Settings) -> None:
    """Raise `InputError` for load parameters that the pipeline does not have, or that need a named pipeline.

    Without a pipeline only parameters that name paths are useful: clients that load a pipeline may not choose them.
    """
    given = settings.load_params
    if settings.pipeline is not None:
        if settings.pipeline != "auto":  # the choice depends on them
            build_parameters(registry.get_pipeline(settings.pipeline).load_parameters, given)
        return
    if not given:
        return
    places = list_path_parameters()
    useless = [name for name in given if name not in places]
    if useless:
        raise InputError(
            f"There is no pipeline to set {', '.join(useless)} of: name one with --pipeline. Without one, --set "
            f"takes places on this machine for pipelines that are loaded later: {', '.join(places)}."
        )


async def start_loading(settings: Settings, pipelines: PipelineManager, references: ReferenceStore) -> None:
    """Begin to load the pipeline, and prepare the portrait when that is done. Later failures are logged."""
    if settings.pipeline is None:
        return
    portrait = None if settings.reference is None else await asyncio.to_thread(settings.reference.read_bytes)

    async def prepare() -> None:
        pipelines.on_loaded.remove(prepare)
        assert portrait is not None
        try:
            await references.add(portrait)
        except PersonaLiveError as error:
            logs.event("reference_rejected", level=logging.ERROR, file=settings.reference, error=str(error))
            references.default_error = (
                f"The portrait that the server was started with cannot be used: {error}"
            )
        finally:
            references.pending_message = None

    if portrait is not None:
        references.pending_message = "The portrait that the server was started with is being prepared."
        pipelines.on_loaded.append(prepare)
    await pipelines.load(
        registry.choose_pipeline(settings.pipeline, settings.load_params).pipeline.info.id,
        settings.load_params,
    )
