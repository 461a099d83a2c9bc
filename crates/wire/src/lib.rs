//! automerge-repo messages to CBOR and back; nothing but bytes.
