from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from personalive.batch.job_list import BatchJob
from personalive.batch.scheduler import JobScheduler
from tests.batch.conftest import a_job


def jobs(*references: str, **options: object) -> list[BatchJob]:
    return [
        a_job(f"{index}-{reference}.mp4", reference=reference, **options)
        for index, reference in enumerate(references)
    ]


def names(schedule: JobScheduler, worker: str, count: int, node: str = "n") -> list[str]:
    taken = [schedule.take(worker, node) for _ in range(count)]
    return [job.reference if job else "-" for job in taken]


def test_a_worker_stays_with_a_reference() -> None:
    schedule = JobScheduler(jobs("a", "b", "a", "b", "a", "c"))
    assert names(schedule, "one", 1) == ["a"]
    assert names(schedule, "two", 2) == ["b", "b"]
    assert names(schedule, "one", 2) == ["a", "a"]
    assert names(schedule, "two", 2) == ["c", "-"]
    assert len(schedule) == 0


def test_the_idle_help_where_most_is_left() -> None:
    schedule = JobScheduler(jobs(*"aaaabb"))
    assert names(schedule, "one", 1) == ["a"]
    assert names(schedule, "two", 1) == ["b"]
    assert names(schedule, "three", 1) == ["a"]
    schedule.remove_worker("two")
    assert names(schedule, "four", 1) == ["b"]


def test_a_worker_stays_with_a_pipeline() -> None:
    schedule = JobScheduler([*jobs("a", "b", size=512), *jobs("c", "d", "e", "c", "c", size=256)])
    order = [job for _ in range(8) if (job := schedule.take("one", "n"))]
    assert len(order) == 7
    assert sum(one.load_key != other.load_key for one, other in pairwise(order)) == 1


def test_what_is_given_back_comes_next_or_later() -> None:
    schedule = JobScheduler(jobs("a", "a", "a"))
    first = schedule.take("one", "n")
    assert first is not None
    schedule.requeue(first)
    assert schedule.take("two", "n") is first
    schedule.requeue(first, seconds=60)
    assert len(schedule) == 3
    assert names(schedule, "one", 3) == ["a", "a", "-"]
    assert len(schedule) == 1


def test_a_node_that_cannot_gets_no_more_of_the_kind() -> None:
    large, small = jobs("a", "b", size=512), jobs("c", size=256)
    schedule = JobScheduler([*large, *small])
    job = schedule.take("one", "bad")
    assert job is not None
    assert job.options["size"] == 512
    schedule.exclude_node(job, "bad", "no weights")
    schedule.requeue(job)
    assert names(schedule, "one", 2, "bad") == ["c", "-"]
    assert schedule.pop_unschedulable({"bad", "good"}) == []
    assert names(schedule, "two", 1, "good") == ["a"]
    assert [(job.reference, reason) for job, reason in schedule.pop_unschedulable({"bad"})] == [
        ("b", "no weights")
    ]
    assert len(schedule) == 0


@given(
    st.lists(st.sampled_from("abcd"), max_size=12),
    st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.booleans()), max_size=60),
)
def test_every_job_is_given_out_once(references: list[str], asked: list[tuple[str, bool]]) -> None:
    schedule = JobScheduler(jobs(*references))
    out: Counter[str] = Counter()
    for worker, keep in asked:
        job = schedule.take(worker, "n")
        if job is None:
            assert len(schedule) == 0
        elif keep:
            out[job.name] += 1
        else:
            schedule.remove_worker(worker)
            schedule.requeue(job)
    assert len(out) == sum(out.values())
    assert len(out) + len(schedule) == len(references)
