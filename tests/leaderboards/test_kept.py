"""What a site keeps between builds: a build that uses it gives the bytes of a new one, whatever happened before."""

import gc
import shutil

import pytest
from culteval.leaderboards.render import kept, site

from ..board_files import write

CONTROLS = [("US", 0), ("US", 1), ("SA", 0)]  # the board of SA has one prefix of its own: another is scored for it


def bytes_of(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    """Three submissions, and random prefixes of two countries."""
    for seed in range(3):
        write(tmp_path / "in", f"s{seed}", seed=seed)
    for country, seed in CONTROLS:
        write(tmp_path / "in", f"r{country}{seed}", country=country, seed=seed, aligner="random_prefix")
    return tmp_path / "in"


def renewed(home, out):
    """How many submissions a build reads, once its bytes are those of a build without anything kept."""
    made = site.build(home, out, print)
    shutil.rmtree(home.parent / "fresh", ignore_errors=True)
    site.build(home, home.parent / "fresh", print)
    assert bytes_of(out) == bytes_of(home.parent / "fresh")
    return made.renewed


def test_one_changed_removed_and_added(home, tmp_path):
    out = tmp_path / "out"
    assert renewed(home, out) == 6
    assert renewed(home, out) == 0
    write(home, "s3", seed=3)
    assert renewed(home, out) == 1
    shutil.rmtree(home / "s1")
    write(home, "s1", seed=9)
    assert renewed(home, out) == 1
    shutil.rmtree(home / "s2")
    shutil.rmtree(home / "rUS1")
    assert renewed(home, out) == 0
    shutil.rmtree(out / "files" / "s0")
    (out / "pages" / "s3.js").unlink()
    assert renewed(home, out) == 2


def test_controls_of_other_countries_are_scored_once(home, tmp_path, monkeypatch):
    site.build(home, tmp_path / "out", print)

    def unwanted(*_):
        raise AssertionError("scored again")

    monkeypatch.setattr(site, "scored_anew", lambda answers: unwanted)
    assert site.build(home, tmp_path / "out", print).renewed == 0
    (tmp_path / "out" / site.KEPT / site.RECORD).unlink()
    with pytest.raises(AssertionError, match="scored again"):
        site.build(home, tmp_path / "out", print)


def flipped(data):
    at = data.index(b'"value":') + 8
    return data[:at] + b"7" + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data * 2],
    ids=["a digit", "the end", "half", "all", "twice"],
)
def test_a_damaged_record_is_not_used(damage, home, tmp_path):
    out = tmp_path / "out"
    site.build(home, out, print)
    record = out / site.KEPT / site.RECORD
    record.write_bytes(damage(record.read_bytes()))
    assert renewed(home, out) == 6


def test_a_build_that_is_interrupted_is_continued(home, tmp_path, monkeypatch):
    out, make, count = tmp_path / "out", site._make, iter(range(9))

    def third_fails(*arguments):
        if next(count) == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(site, "_make", third_fails)
        site.build(home, out, print)
    assert renewed(home, out) == 4


def test_pages_of_a_killed_build_are_not_trusted(home, tmp_path, monkeypatch):
    """An entry changes, the build is killed after its page was written, and the entry is what it was."""
    out = tmp_path / "out"
    site.build(home, out, print)
    (home / "s1").rename(tmp_path / "aside")
    write(home, "s1", seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(kept.Kept, "write", lambda self: None)
        site.build(home, out, print)
    shutil.rmtree(home / "s1")
    (tmp_path / "aside").rename(home / "s1")
    assert renewed(home, out) == 6


def test_what_an_earlier_version_kept_goes(home, tmp_path):
    out = tmp_path / "out"
    site.build(home, out, print)
    (out / site.KEPT / "control").mkdir()
    (out / site.KEPT / "s0.key").write_text("0")
    assert renewed(home, out) == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_the_garbage_collector_is_left_as_it_was(wanted, home, tmp_path):
    before = gc.isenabled()
    try:
        (gc.enable if wanted else gc.disable)()
        site.build(home, tmp_path / "out", print)
        assert gc.isenabled() == wanted
    finally:
        (gc.enable if before else gc.disable)()
