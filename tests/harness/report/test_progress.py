"""Bars and lines of what is under way: a time left at every pace, and anew where the same thing begins again."""

from io import StringIO

import pytest
from culteval.harness.report.progress import TerminalDisplay
from rich.console import Console


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def display(clock, terminal):
    return TerminalDisplay(Console(file=StringIO(), force_terminal=terminal, width=120), clock=clock)


def bars(one):
    """What a terminal shows now, a line a bar."""
    console = Console(file=StringIO(), width=120)
    console.print(one._progress.get_renderable())
    return console.file.getvalue().splitlines()


def told(one):
    return one.console.file.getvalue().splitlines()


@pytest.mark.parametrize("pace", [0.5, 35, 1200])
def test_a_bar_has_a_time_left_however_slow_its_steps(clock, pace):
    one = display(clock, terminal=True)
    one.advance("ablation", 0, 5, None)
    assert bars(one)[0].endswith("0:00:00 -:--:--")
    for step in (1, 2, 3):
        clock.now += pace
        one.advance("ablation", step, 5, None)
    assert bars(one)[0].endswith({0.5: "0:00:01", 35: "0:01:10", 1200: "0:40:00"}[pace])
    clock.now += pace / 2  # nothing was heard since
    assert bars(one)[0].endswith({0.5: "0:00:01", 35: "0:00:52", 1200: "0:30:00"}[pace])


def test_what_was_done_before_does_not_count_as_fast(clock):
    one = display(clock, terminal=True)
    one.advance("training", 80, 100, None)
    clock.now += 60
    one.advance("training", 81, 100, None)
    assert bars(one)[0].endswith("0:01:00 0:19:00")


@pytest.mark.parametrize("second", [(1, 4), (1, 9), (0, 4)])
def test_a_bar_that_begins_again_is_anew(clock, second):
    one = display(clock, terminal=True)
    for step in range(5):
        one.advance("training", step, 4, None)
        clock.now += 60
    assert bars(one)[0].endswith("0:04:00 0:00:00")
    done, total = second
    one.advance("training", done, total, None)
    clock.now += 60
    one.advance("training", done + 1, total, None)
    [line] = bars(one)
    assert f"{done + 1} of {total}" in line and line.endswith(f"0:01:00 0:0{total - done - 1}:00")


def test_lines_have_a_time_left_too(clock):
    one = display(clock, terminal=False)
    for step in range(4):
        one.advance("clca training", step, 3, None)
        one.advance("clca asking", 0, 9, None)  # which takes no line from the other
        clock.now += 40
    lines = [line for line in told(one) if "training" in line]
    assert lines == [
        "clca training: 0 of 3",
        "clca training: 1 of 3 | 0:01:20 left",
        "clca training: 2 of 3 | 0:00:40 left",
        "clca training: 3 of 3",
    ]


@pytest.mark.parametrize(
    ("seconds", "lines"), [(0.5, []), (1.5, ["entries: 3 of 4 | 0:00:02 left", "entries: 4 of 4"])]
)
def test_what_is_over_in_a_moment_takes_no_line(clock, seconds, lines):
    one = display(clock, terminal=False)
    for done in range(1, 5):
        one.advance("entries", done, 4, None)
        clock.now += seconds
    assert told(one) == lines


def test_lines_keep_their_distance(clock):
    one = display(clock, terminal=False)
    for step in range(101):
        one.advance("de", step, 100, 0.5)
        clock.now += 1
    assert len(told(one)) == 11 and told(one)[-1] == "de: best loss 0.5 | 0 evaluations left"
