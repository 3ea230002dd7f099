"""The tutorial notebook: it runs from the first cell to the last, on a tiny model in place of the embedded one."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_CACHE", str(tiny_cache))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())}
    assert {"text/html", "image/png"} <= shown
    assert len(list(tmp_path.glob("culteval-runs/*/submission/manifest.json"))) == 3


def test_the_notebook_is_valid_and_shows_what_its_cells_gave():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert "/" + "home" not in NOTEBOOK.read_text() and "/" + "root" not in NOTEBOOK.read_text()
