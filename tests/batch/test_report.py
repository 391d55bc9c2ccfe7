from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from personalive.batch.manifest import JobRecord, JobState
from personalive.batch.report import BatchTotals, save_thumbnail, write_report
from tests.batch.conftest import a_job


class Page(HTMLParser):
    """Which tags there are, that all are closed, and the text."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


LINES = [
    (
        a_job("fine.mp4"),
        JobRecord(
            name="fine.mp4",
            state=JobState.DONE,
            seconds=2.0,
            frames=50,
            fps=25.0,
            attempts=1,
            pipeline_name="a <pipeline>",
            notes=("Held.",),
        ),
    ),
    (
        a_job("<script>alert(1)</script>.mp4", reference='/in/"><img src=x>.png'),
        JobRecord(name="<script>alert(1)</script>.mp4", state=JobState.FAILED, reason="No <b>face</b> $out."),
    ),
    (a_job("later.mp4", size=256), JobRecord(name="later.mp4")),
]


def test_both_reports_say_what_came_of_it(tmp_path: Path) -> None:
    save_thumbnail(str(tmp_path), "fine.mp4", b"\xff\xd8 a picture")
    page = write_report(str(tmp_path), LINES, 12.5)
    assert page == str(tmp_path / "report.html")
    text = Path(page).read_text()
    seen = Page(text)
    assert seen.tags.count("tr") == 4
    assert "script" not in seen.tags
    assert [source.partition(",")[0] for source in seen.sources] == ["data:image/jpeg;base64"]
    assert "No <b>face</b> $out." in seen.text
    assert "Held." in seen.text
    assert "a <pipeline>" in seen.text
    assert seen.text.index("alert(1)") < seen.text.index("later.mp4") < seen.text.index("fine.mp4")
    assert not re.search(r"https?://|url\(|@import", text), "nothing comes from elsewhere"

    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["totals"] == {
        "jobs": 3, "done": 1, "failed": 1, "unfinished": 1, "frames": 50, "seconds": 2.0, "video_seconds": 2.0,
        "pipelines": ["a <pipeline>"],
    }  # fmt: skip
    assert facts["wall_seconds"] == 12.5
    assert [job["state"] for job in facts["jobs"]] == ["done", "failed", "pending"]
    assert facts["jobs"][1]["reason"] == "No <b>face</b> $out."
    assert facts["jobs"][2]["options"] == {"parameters": {}, "size": 256}


def test_nothing_is_divided_by_nothing() -> None:
    assert BatchTotals.from_rows([]) == BatchTotals(0, 0, 0, 0, 0, 0.0, 0.0, ())
