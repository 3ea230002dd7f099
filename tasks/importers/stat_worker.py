"""Read columns of a file of SPSS or Stata, in a process of its own: the C library may crash on a damaged file.

This file is run by its path and imports nothing of this package. It takes one request as JSON and writes one line of
JSON, after which the bytes of int32 arrays follow if columns were asked for.
"""

from __future__ import annotations

import json
import sys
from typing import Any

CELLS = 5_000_000  # read at once: each is a Python object of some 32 bytes until it is in an array
_FALLBACK = "LATIN1"  # of files whose declared encoding is wrong


def main() -> None:
    """Answer the request of the command line; a file that cannot be read gives the reason as ``error``."""
    import pyreadstat

    request = json.loads(sys.argv[1])
    arrays: list[Any] = []
    try:
        if request["names"] is None:
            answer = metadata(request["path"])
        else:
            answer, arrays = columns(**request)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OverflowError, MemoryError) as error:
        answer = {"error": (str(error).splitlines() or [type(error).__name__])[0][:120]}
    out = sys.stdout.buffer
    out.write(json.dumps(answer).encode() + b"\n")
    for array in arrays:
        out.write(array.tobytes())


def metadata(path: str) -> dict[str, Any]:
    """Read names, labels and types of columns, labels of values, the number of rows, and the encoding to read in."""
    encoding = None
    try:
        found = _read(path, metadataonly=True)[1]
    except UnicodeDecodeError:
        encoding = _FALLBACK
        found = _read(path, metadataonly=True, encoding=encoding)[1]
    values = {
        name: {text_of(code): str(label) for code, label in labels.items()}
        for name, labels in found.variable_value_labels.items()
    }
    return {
        "rows": found.number_rows,
        "names": found.column_names,
        "labels": [label or "" for label in found.column_labels],
        "values": values,
        "texts": [name for name, kind in found.readstat_variable_types.items() if kind == "string"],
        "encoding": encoding,
    }


def columns(
    path: str, names: list[str], rows: int, texts: list[str], encoding: str | None
) -> tuple[dict[str, Any], list[Any]]:
    """Read some columns, a block of rows at a time, each as its distinct texts and places among them (rows,) int32.

    Values that the file declares missing are empty texts.
    """
    import numpy as np

    block = max(1, CELLS // len(names))
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for start in range(0, rows, block):
        found, _ = _read(
            path, usecols=names, row_offset=start, row_limit=block, disable_datetime_conversion=True, encoding=encoding
        )
        for name in names:
            parts[name].append(np.array(found[name], dtype=object if name in texts else np.float64))
    coded = [_coded(np.concatenate(parts.pop(name))) for name in names]
    return {"distinct": [texts for texts, _ in coded], "rows": len(coded[0][1])}, [place for _, place in coded]


def _coded(values: Any) -> tuple[list[str], Any]:
    """Return the distinct values as texts, an empty one last, and each value's place (rows,) among them."""
    import numpy as np

    if values.dtype == object:
        seen: dict[str, int] = {}
        place = np.array([seen.setdefault(text or "", len(seen)) for text in values], dtype=np.int32)
        return [*map(text_of, seen), ""], place
    known = ~np.isnan(values)
    numbers = values[known]
    if numbers.size and (numbers == np.rint(numbers)).all() and np.ptp(numbers) < 1 << 20:  # codes, without sorting
        codes = numbers.astype(np.int64) - int(numbers.min())
        there = np.bincount(codes) > 0
        distinct, own = np.flatnonzero(there) + int(numbers.min()), (np.cumsum(there) - 1)[codes]
    else:
        distinct, own = np.unique(numbers, return_inverse=True)
    at = np.full(len(values), len(distinct), dtype=np.int32)
    at[known] = own
    return [*map(text_of, distinct.tolist()), ""], at


def _read(path: str, **how: Any) -> Any:
    import pyreadstat

    with open(path, "rb") as file:
        spss = file.read(3) == b"$FL"
    return (pyreadstat.read_sav if spss else pyreadstat.read_dta)(path, output_format="dict", **how)


def text_of(value: Any) -> str:
    """Write a number without needless decimals, so that codes are compared as texts."""
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if float(value).is_integer() else repr(float(value))


if __name__ == "__main__":
    main()
