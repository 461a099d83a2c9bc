"""Bodies that Schemathesis cannot make by itself: Automerge files, whole and damaged."""

import os
import urllib.error
import urllib.request

import schemathesis
from hypothesis import strategies as st

TYPE = "application/vnd.automerge"


VALUE = b'{"text": "hello", "list": [1, {"a": 2}], "": {"": 0}, "n": 1.5}'


def whole_file() -> bytes:
    """The document that exists before anything is tried: made here, if it is not there yet."""
    url = os.environ["TRIBUTARY_DOCUMENT"]
    folder, _, name = url.rpartition("/")
    create = urllib.request.Request(
        f"{folder}?id={name}", data=VALUE, headers={"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(create, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
    read = urllib.request.Request(url, headers={"Accept": TYPE})
    with urllib.request.urlopen(read, timeout=30) as answer:
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
