"""The first look at a file, and its pieces: whole lines, in order, nothing lost."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbridge.data.lint import source as source_module
from ftbridge.data.lint.source import Source

LINE = b'{"messages": [{"role": "user", "content": "a"}]}'
FORMS = {
    b"": "empty",
    b" \n\r\n": "empty",
    LINE: "lines",
    b"\n\n" + LINE: "lines",
    b"\xef\xbb\xbf" + LINE: "lines",
    LINE + b"\n" + LINE: "lines",
    b"[" + LINE + b"]": "array",
    b"[" + LINE + b",\n" + LINE + b"]": "array",
    b"\n[\n" + LINE + b"\n]": "array",
    b'[{"role": "user"}]': "lines",
    b"[1, 2]\n[3, 4]\n": "lines",
    json.dumps({"messages": []}, indent=1).encode(): "pretty",
    b'{ "messages":\n [] }\n{ "messages":\n [] }': "pretty",
    b'{ "messages":\n' + LINE: "lines",
    LINE.decode().encode("utf-16"): "utf-16",
    LINE.decode().encode("utf-16-le"): "utf-16",
    b"\x1f\x8b\x08\x00": "gzip",
    b"PK\x03\x04": "zip",
    b"PAR1": "parquet",
    b"\0\0\1\2": "binary",
    b"prompt,completion\na,b\n": "table",
}


@pytest.mark.parametrize(("raw", "form"), FORMS.items(), ids=range(len(FORMS)))
def test_the_first_look_tells_what_kind_of_file_it_is(raw, form, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(raw)
    source = Source(str(path))

    assert source.facts().form == form
    source.close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.lists(st.sampled_from([b"\n", b"ab", b"c" * 30, b"\r\n", b" "]), max_size=30).map(b"".join),
       piece=st.integers(1, 40), longer=st.integers(0, 60))  # fmt: skip
def test_pieces_are_whole_lines_that_make_up_the_file(raw, piece, longer, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(raw)
    longest = piece + longer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "PIECE", piece)
        patch.setattr(source_module, "LONGEST_LINE", longest)
        source = Source(str(path))
        pieces = list(source.pieces())
        blocks = [source.read(piece) for piece in pieces]
        source.close()

    assert b"".join(blocks) == raw
    assert all(block.endswith(b"\n") for block in blocks[:-1])
    assert all(
        block.count(b"\n") <= 1 and len(block) > longest for block, p in zip(blocks, pieces, strict=True) if p.too_long
    )
    assert all(
        p.too_long for block, p in zip(blocks, pieces, strict=True) if max(map(len, block.split(b"\n"))) > longest
    )


def test_a_line_is_found_again_by_its_beginning_and_cut_where_it_is_long(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"a\n" + b"b" * 100_000 + b"\nc")
    source = Source(str(path))

    assert source.line_at(0) == b"a"
    assert source.line_at(2) == b"b" * 100_000
    assert source.line_at(2, limit=50) == b"b" * 50
    assert source.line_at(100_003) == b"c"
    source.close()
