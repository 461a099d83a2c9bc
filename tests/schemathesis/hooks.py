"""Bodies that Schemathesis cannot make by itself: Automerge files, whole and damaged."""

import os
import urllib.request

import schemathesis
from hypothesis import strategies as st

TYPE = "application/vnd.automerge"


def whole_file() -> bytes:
    """The document that the test command has made."""
    request = urllib.request.Request(os.environ["TRIBUTARY_DOCUMENT"], headers={"Accept": TYPE})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


FILE = whole_file()


def damaged(place_and_bits: tuple[int, int]) -> bytes:
    place, bits = place_and_bits
    place %= len(FILE)
    return FILE[:place] + bytes([FILE[place] ^ bits]) + FILE[place + 1 :]


schemathesis.openapi.media_type(
    TYPE,
    st.one_of(
        st.just(FILE),
        st.integers(0, len(FILE)).map(lambda length: FILE[:length]),
        st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)).map(damaged),
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda more: FILE + more),
    ),
)


@schemathesis.serializer(TYPE)
def as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()
