"""`captions.csv`: maps files to captions.

Spreadsheets and editors write such tables in several encodings, with several delimiters and with slips. A row that
cannot be trusted is named and left out; the rest is read.
"""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mobivid_core.errors import ParameterError

CAPTIONS = "captions.csv"
COLUMNS = ("file", "caption")
_DELIMITERS = ",;\t|"
_WIDE = (BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE)


@dataclass
class CaptionTable:
    """Rows of a table."""

    wordings: list[tuple[str, str]] = field(default_factory=list)  # file as the table names it, caption (may be empty)
    faulty: list[tuple[str, str]] = field(default_factory=list)  # file, or line of the table, -> why a row was left out
    encoding: str = "utf-8"  # how the table is encoded


def decode_text(data: bytes) -> tuple[str, str]:
    """Text of any encoding, and its name: UTF-8 where the bytes allow it, else charset-normalizer's guess."""
    from charset_normalizer import from_bytes

    with suppress(UnicodeDecodeError):
        text = "" if data.startswith(_WIDE) else data.decode("utf-8-sig")
        if 4 * text.count("\0") < len(text) or not data:  # else UTF-16 without a mark
            return text, "utf-8"
    found = from_bytes(data).best()
    if found is None:
        raise ParameterError("its bytes are not text in any known encoding; save it as UTF-8")
    return str(found), found.encoding


def read_captions(file: Path) -> CaptionTable:
    """Read a CSV file with the columns `file` and `caption`; a ParameterError says what is wrong with all of it."""
    try:
        text, encoding = decode_text(file.read_bytes())
    except OSError as error:
        raise ParameterError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    except ParameterError as error:
        raise ParameterError(f"{file}: {error}") from error
    table = CaptionTable(encoding=encoding)
    rows = _rows(text, table)
    header = [name.strip().lower() for name in next(rows, (0, []))[1]]
    if not set(COLUMNS) <= set(header):
        raise ParameterError(
            f"{file} needs the columns file and caption, got {', '.join(header) or 'an empty file'}; "
            f"make its first line {','.join(COLUMNS)}"
        )
    for line, row in rows:
        if any(cell.strip() for cell in row):
            _take(row, line, header, table)
    return table


def _take(row: list[str], line: int, header: list[str], table: CaptionTable) -> None:
    """Add one row to the table, or say why not."""
    name, words = (row[k].strip() if k < len(row) else "" for k in map(header.index, COLUMNS))
    if not name:
        table.faulty.append((f"{CAPTIONS}, line {line}", "names no file"))
    elif "\0" in name + words:
        table.faulty.append((name, f"line {line} of {CAPTIONS} holds a NUL character; save it as UTF-8 text"))
    elif any(cell.strip() for cell in row[len(header) :]):
        fields = f"line {line} of {CAPTIONS} has {len(row)} fields, expected {len(header)}"
        table.faulty.append((name, f"{fields}: put the caption in double quotes"))
    else:
        table.wordings.append((name, words))


def _rows(text: str, table: CaptionTable) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows; if a quote is never closed, each line by itself, so that it does not swallow the rest."""
    style = {"delimiter": ",", "skipinitialspace": True, "strict": True}
    with suppress(csv.Error):
        first = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
        style["delimiter"] = csv.Sniffer().sniff(first, _DELIMITERS).delimiter
    with suppress(csv.Error):
        reader = csv.reader(io.StringIO(text, newline=""), **style)
        yield from [(reader.line_num, row) for row in reader]
        return
    for line, content in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        try:
            yield line, next(csv.reader([content], **style), [])
        except csv.Error as error:
            name = content.split(style["delimiter"])[0].strip(' "') or f"{CAPTIONS}, line {line}"
            table.faulty.append(
                (name, f"line {line} of {CAPTIONS} cannot be read ({error}): close its quotes, or double inner ones")
            )
