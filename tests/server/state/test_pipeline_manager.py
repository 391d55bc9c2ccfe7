from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from personalive.errors import InputError, PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry
from personalive.pipelines.base import LoadParameters, LoadProgressCallback
from personalive.server.errors import ConflictError
from personalive.server.server import Server
from personalive.server.state.pipeline_manager import PipelineManager
from tests.server.parts import SMALL, encoded, ended, loaded, opened, portrait, running, until


def in_server(test: Callable[[Server], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        async with running(**settings) as server:
            await test(server)

    asyncio.run(run())


class Weights:
    """Stands for what fills the memory."""


@pytest.fixture
def slow(plugins: None) -> Iterator[type[Any]]:
    """The echo pipeline, whose loading waits until it is told how to end."""
    echo: Any = registry.get_pipeline("echo")

    class Slow(echo):  # type: ignore[misc]
        go = threading.Event()
        fails_with: ClassVar[Exception | None] = None
        weights: ClassVar[list[weakref.ref[Weights]]] = []
        closed = 0

        @classmethod
        def load(cls, parameters: LoadParameters, report: LoadProgressCallback | None = None) -> Any:
            weights = Weights()
            cls.weights.append(weakref.ref(weights))
            assert report is not None
            report("reading", 0.25)
            while not cls.go.wait(0.01):
                report("reading", 0.25)
            if cls.fails_with is not None:
                raise cls.fails_with
            made = cls(parameters)
            made.held = weights
            return made

        def close(self) -> None:
            type(self).closed += 1

    module: Any = __import__("echo_pipeline")
    original, module.EchoPipeline = module.EchoPipeline, Slow
    yield Slow
    module.EchoPipeline = original


def test_nothing_is_loaded_at_first() -> None:
    async def test(server: Server) -> None:
        assert server.pipelines.pipeline is None
        status = server.pipelines.get_status()
        assert (status.status, status.pipeline_id, status.error) == ("not_loaded", None, None)
        # Whoever asks for its health need not replace it.
        assert await server.pipelines.is_responsive(5)

    in_server(test)


def test_loading_goes_on_in_the_background_and_says_how_far_it_is(slow: type[Any]) -> None:
    async def test(server: Server) -> None:
        host, told = server.pipelines, list[str]()

        async def tell() -> None:
            told.append(host.get_status().status)

        host.on_loaded.append(tell)
        message = await host.load("echo", SMALL | {"seed": 7})
        assert "echo" in message
        await until(lambda: host.get_status().stage == "reading")
        status = host.get_status()
        assert (status.status, status.pipeline_id, status.progress) == ("loading", "echo", 0.25)
        assert status.load_params == {"height": 256, "width": 256, "seed": 7}
        assert host.pipeline is None
        with pytest.raises(ConflictError, match="being loaded"):
            await host.load("echo", SMALL | {"seed": 7})
        slow.go.set()
        await ended(host)
        assert host.get_status().status == "loaded"
        assert host.pipeline is server.workers[0].pipeline
        await until(lambda: told == ["loaded"])

    in_server(test)


def test_null_and_no_parameters_mean_the_defaults(plugins: None) -> None:
    async def test(server: Server) -> None:
        await server.pipelines.load("echo", None)
        await ended(server.pipelines)
        assert server.pipelines.get_status().load_params == {"height": 512, "width": 512, "seed": 42}

    in_server(test)


@pytest.mark.parametrize(
    ("pipeline_id", "parameters", "error", "words"),
    [
        ("nobody", {}, UnknownPipelineError, "There is no pipeline 'nobody'. Known: .*preview"),
        ("auto", {}, UnknownPipelineError, "no pipeline 'auto'"),
        ("broken", {}, PipelineUnavailableError, "cannot be imported"),
        ("missing", {}, PipelineUnavailableError, "Run `download_models --pipeline missing`"),
        ("personalive", {}, PipelineUnavailableError, "Run: personalive download"),
        ("preview", {"height": 100}, InputError, "height = 100"),
        ("preview", {"nothing": 1}, InputError, "no parameter .nothing."),
        ("preview", {"seed": 2**63}, InputError, "seed"),
        ("preview", {"width": float("nan")}, InputError, "width = nan"),
        ("preview", {"width": 1e300}, InputError, "width"),
        ("preview", {"width": "wide"}, InputError, "width = 'wide'"),
        ("personalive", {"num_inference_steps": 3}, InputError, "must equal temporal_adaptive_step"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(
    plugins: None, pipeline_id: str, parameters: dict[str, object], error: type[Exception], words: str
) -> None:
    async def test(server: Server) -> None:
        with pytest.raises(error, match=words):
            await server.pipelines.load(pipeline_id, parameters)
        assert server.pipelines.get_status().status == "not_loaded"

    in_server(test)


def test_a_refused_load_leaves_what_is_loaded() -> None:
    async def test(server: Server) -> None:
        await loaded(server.pipelines)
        before = server.pipelines.pipeline
        with pytest.raises(PipelineUnavailableError):
            await server.pipelines.load("personalive", {})
        assert server.pipelines.pipeline is before
        assert server.pipelines.get_status().status == "loaded"

    in_server(test)


@pytest.mark.slow
def test_the_same_again_changes_nothing_and_another_replaces_it(plugins: None) -> None:
    async def test(server: Server) -> None:
        host = server.pipelines
        await loaded(host, "echo")
        first = host.pipeline
        assert "already" in await host.load("echo", {**SMALL, "seed": 42})
        assert host.pipeline is first
        await loaded(host, "echo", seed=1)
        assert host.pipeline is not first
        assert host.get_status().load_params == {"height": 256, "width": 256, "seed": 1}

    in_server(test)


@pytest.mark.slow
def test_sessions_are_kept_unless_it_is_forced(plugins: None) -> None:
    async def test(server: Server) -> None:
        host, told = server.pipelines, list[dict[str, Any]]()
        await loaded(host, "echo")
        await server.references.add(encoded(portrait()))
        stream = await opened(server)
        stream.add_message_listener(told.append)
        await host.load("echo", SMALL)
        assert server.sessions.all() == [stream]
        with pytest.raises(ConflictError, match=r"1 session streams.*force"):
            await host.load("preview", SMALL)
        with pytest.raises(ConflictError, match="1 session streams"):
            await host.unload(force=False)
        assert not stream.ended
        await host.load("preview", SMALL, force=True)
        await ended(host)
        assert stream.ended
        assert told[-1] == {
            "type": "stream_stopped",
            "error_message": "Another pipeline is being loaded.",
        }
        assert host.get_status().pipeline_id == "preview"

    in_server(test)


def test_a_failed_load_stays_an_error_and_gives_memory_back(slow: type[Any]) -> None:
    async def test(server: Server) -> None:
        host = server.pipelines
        slow.go.set()
        for error, words in (
            (InputError("The weights are of another model."), "The weights are of another model."),
            (MemoryError(), "There is not enough memory for the echo pipeline"),
            (RuntimeError("boom"), "failed: RuntimeError: boom"),
        ):
            slow.fails_with = error
            await loaded(host, "echo")
            for _ in range(2):
                status = host.get_status()
                assert status.status == "error"
                assert status.pipeline_id == "echo"
                assert words in str(status.error)
            assert host.pipeline is None
            error.__traceback__ = None  # this test's own hold on it
        gc.collect()
        assert [ref() for ref in slow.weights] == [None] * 3
        slow.fails_with = None
        await loaded(host, "echo")
        assert host.get_status().status == "loaded"

    in_server(test)


def test_how_the_pipeline_runs_here_is_in_the_status_and_in_the_log(
    slow: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    said = "8 GB card: references wait on the host (low_vram=on)."
    slow.notes = (said,)

    async def test(server: Server) -> None:
        slow.go.set()
        with caplog.at_level(logging.INFO):
            await loaded(server.pipelines, "echo")
        assert server.pipelines.get_status().notes == [said]

    in_server(test)
    (event,) = [record for record in caplog.records if record.getMessage() == "pipeline_loaded"]
    assert vars(event)["personalive_fields"]["notes"] == said


@pytest.mark.slow
def test_the_old_pipeline_is_closed_before_the_next_is_loaded(slow: type[Any]) -> None:
    async def test(server: Server) -> None:
        slow.go.set()
        await loaded(server.pipelines, "echo")
        await loaded(server.pipelines, "echo", seed=3)
        assert slow.closed == 1
        assert slow.weights[0]() is None
        await server.pipelines.unload()
        assert slow.closed == 2
        gc.collect()
        assert slow.weights[1]() is None
        assert server.pipelines.get_status().status == "not_loaded"
        assert server.workers[0].pipeline is None

    in_server(test)


def test_a_load_that_runs_can_be_given_up(slow: type[Any]) -> None:
    async def test(server: Server) -> None:
        host = server.pipelines
        await host.load("echo", SMALL)
        await until(lambda: host.get_status().stage == "reading")
        with pytest.raises(ConflictError):
            await host.unload(force=False)
        await host.unload()
        assert host.get_status().status == "not_loaded"
        slow.go.set()
        await loaded(host, "echo")
        assert host.get_status().status == "loaded"

    in_server(test)


def test_of_many_loads_at_once_one_wins(slow: type[Any]) -> None:
    async def test(server: Server) -> None:
        asked = [server.pipelines.load("echo", {**SMALL, "seed": seed}) for seed in range(8)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, str) for result in results) == 1
        assert sum(isinstance(result, ConflictError) for result in results) == 7
        slow.go.set()
        await ended(server.pipelines)
        assert server.pipelines.get_status().status == "loaded"

    in_server(test)


def test_weights_named_in_the_parameters_are_looked_for_there(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        with pytest.raises(PipelineUnavailableError, match=f"no weights in {tmp_path}"):
            await PipelineManager([server.workers[0]], server.sessions, {"weights": str(tmp_path)}).load(
                "personalive", {}
            )

    in_server(test)


def test_loading_without_the_worker_fails_in_words() -> None:
    async def test(server: Server) -> None:
        server.workers[0].stop()
        await loaded(server.pipelines)
        assert server.pipelines.get_status().error == "The server is stopping."

    in_server(test)


def test_the_diffusion_pipeline_is_loaded(test_weights: Path) -> None:
    async def test(server: Server) -> None:
        host = PipelineManager([server.workers[0]], server.sessions, {"weights": str(test_weights)})
        await loaded(host, "personalive", device="cpu")
        status = host.get_status()
        assert (status.status, status.error) == ("loaded", None)
        assert status.load_params is not None
        assert status.load_params["weights"] == str(test_weights)
        assert any("experimental" in warning for warning in status.warnings)
        await host.unload()

    in_server(test)


@pytest.mark.slow
def test_places_on_the_server_are_the_servers_choice(test_weights: Path) -> None:
    async def act() -> None:
        async with running() as server:
            with pytest.raises(InputError, match="--set weights=DIR"):
                await server.pipelines.load("personalive", {"weights": str(test_weights)})
        async with running(load_params={"weights": str(test_weights)}) as server:
            await server.pipelines.load("personalive", {"width": 64, "height": 64, "experimental": True})
            await ended(server.pipelines)
            assert server.pipelines.get_status().status == "loaded"
            with pytest.raises(InputError, match="--set weights=DIR"):
                await server.pipelines.load("personalive", {"weights": "/etc"})

    asyncio.run(act())
