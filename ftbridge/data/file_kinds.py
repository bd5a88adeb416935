"""What a file is by how it begins: no data at all, or a table."""

from __future__ import annotations

from ftbridge.data.field_names import meaning_of

_NOT_DATA: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself",
        "Run git lfs pull, and use the file that it fetches.",
    ),
    (b"%PDF-", "a PDF document", "Write its text as JSON Lines or CSV."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"\x80\x04\x95", "a Python pickle", "Write its records as JSON Lines."),
    (b"\x93NUMPY", "a NumPy array", "Write its records as JSON Lines."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet: datasets.Dataset.to_parquet()."),
    (b"\x89PNG", "an image", "Write examples as JSON Lines, with the image's address."),
    (b"\xff\xd8\xff", "an image", "Write examples as JSON Lines, with the image's address."),
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel workbook (.xls)",
        "Save it in Excel as .xlsx, or as CSV UTF-8 (File, Save As).",
    ),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it, and use the data file in it."),
    (b"Rar!", "a RAR archive", "Unpack it, and use the data file in it."),
    (b"BZh", "bzip2 data", "Unpack it with bunzip2."),
    (b"\xfd7zXZ", "xz data", "Unpack it with unxz."),
)
_TAR_AT = 257
"""Where the header of a tar archive has its mark; before it is the name of its first file."""

_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<!doctype")


def not_data(head: bytes) -> tuple[str, str] | None:
    """What a file is that contains no records, and what to do, by its first bytes; None for anything else.

    A zip archive is not told here: it may hold a workbook or a data file.
    """
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, name, advice in _NOT_DATA:
        if begins.startswith(start):
            return name, advice
    if head[_TAR_AT:].startswith(b"ustar"):
        return "a tar archive", "Unpack it (tar -xf), and use the data files in it."
    if begins[:20].lower().startswith(_PAGES):
        return (
            "a web page or XML",
            "Download the file itself: the address of a page often ends in /blob/ or needs a login.",
        )
    return None


def looks_like_table(first_line: str) -> bool:
    """Whether a line is the header of a CSV or TSV: two or more short names with one delimiter, and no JSON."""
    if first_line.lstrip().startswith(("{", "[", '"{', '"[')) or not first_line.strip():
        return False
    for delimiter in (",", "\t", ";", "|"):
        names = [name.strip().strip('"') for name in first_line.split(delimiter)]
        if len(names) > 1 and all(len(name) < 40 for name in names) and sum(bool(name) for name in names) > 1:
            return any(meaning_of(name) for name in names)
    return False
