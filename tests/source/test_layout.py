import io

from hypothesis import given
from hypothesis import strategies as st

from bulkembed.formats.text_lines import RowIndex, TextFile


@given(st.lists(st.sampled_from([b"{}\n", b'{"a": 1}\n', b"\n", b"  \n"]), max_size=50))
def test_scan_counts_non_blank_lines(lines: list[bytes]) -> None:
    text = TextFile(io.BufferedReader(io.BytesIO(b"".join(lines))), 0, b"\n", True)
    index = RowIndex(text, text.lines, bytes.isspace, None)
    index.read_rest()
    assert index.layout().rows == sum(not line.isspace() for line in lines)
