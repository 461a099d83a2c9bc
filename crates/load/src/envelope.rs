//! The CBOR envelope of automerge-repo messages, as little of it as a load generator needs.

/// The fields of an incoming message that a client acts on. Absent ones are empty.
#[derive(Default)]
pub struct Envelope<'a> {
    /// `type`.
    pub kind: &'a str,
    /// `senderId`.
    pub sender: &'a str,
    /// `documentId`.
    pub document: &'a str,
    /// `data`, the sync message.
    pub data: &'a [u8],
    /// `message`, the text of an `error`.
    pub text: &'a str,
}

/// Reads the envelope of one frame.
///
/// # Errors
/// If it is not a CBOR map with text keys.
pub fn read(frame: &[u8]) -> Result<Envelope<'_>, String> {
    let mut reader = Reader { rest: frame };
    let (5, pairs) = reader.head()? else { return Err("a frame that is not a map".to_owned()) };
    let mut envelope = Envelope::default();
    for _ in 0..pairs {
        let key = reader.text()?;
        match key {
            "type" => envelope.kind = reader.text()?,
            "senderId" => envelope.sender = reader.text()?,
            "documentId" => envelope.document = reader.text()?,
            "message" => envelope.text = reader.text()?,
            "data" => envelope.data = reader.bytes()?,
            _ => reader.skip(8)?,
        }
    }
    Ok(envelope)
}

/// The `join` that opens a client's session.
pub fn join(sender: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    head(&mut out, 5, 4);
    pair(&mut out, "type", "join");
    pair(&mut out, "senderId", sender);
    text(&mut out, "peerMetadata");
    head(&mut out, 5, 1);
    text(&mut out, "isEphemeral");
    out.push(0xF5);
    text(&mut out, "supportedProtocolVersions");
    head(&mut out, 4, 1);
    text(&mut out, "1");
    out
}

/// Everything of a `sync` or `request` before the bytes of `data`: the map's fields and the key.
/// [`data_head`] and the data follow it.
pub fn before_data(kind: &str, sender: &str, target: &str, document: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    head(&mut out, 5, 5);
    pair(&mut out, "type", kind);
    pair(&mut out, "senderId", sender);
    pair(&mut out, "targetId", target);
    pair(&mut out, "documentId", document);
    text(&mut out, "data");
    out
}

/// The head of a byte string of that length.
pub fn data_head(out: &mut Vec<u8>, length: usize) {
    head(out, 2, length);
}

fn pair(out: &mut Vec<u8>, key: &str, value: &str) {
    text(out, key);
    text(out, value);
}

fn text(out: &mut Vec<u8>, value: &str) {
    head(out, 3, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn head(out: &mut Vec<u8>, major: u8, value: usize) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xFF => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xFFFF => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Major type and argument of the next item.
    fn head(&mut self) -> Result<(u8, usize), String> {
        let first = self.take(1)?[0];
        let value = match first & 0x1F {
            short @ 0..=23 => short as usize,
            width @ 24..=27 => {
                let bytes = self.take(1 << (width - 24))?;
                bytes.iter().fold(0, |value, byte| (value << 8) | *byte as usize)
            }
            _ => return Err("CBOR of indefinite length".to_owned()),
        };
        Ok((first >> 5, value))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("CBOR that ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let (3, length) = self.head()? else { return Err("not a CBOR text".to_owned()) };
        std::str::from_utf8(self.take(length)?).map_err(|error| error.to_string())
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let (2, length) = self.head()? else { return Err("not CBOR bytes".to_owned()) };
        self.take(length)
    }

    fn skip(&mut self, depth: usize) -> Result<(), String> {
        let inside = depth.checked_sub(1).ok_or("CBOR that is nested too deeply")?;
        let (major, value) = self.head()?;
        let items = match major {
            2 | 3 => {
                self.take(value)?;
                0
            }
            4 => value,
            5 => value.saturating_mul(2),
            6 => 1,
            _ => 0,
        };
        for _ in 0..items {
            self.skip(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_client_s_own_sync_frame_is_read() {
        // The golden frame of the protocol notes: a two-byte map length, 16 bytes of 0x01 as id.
        let frame = hex(
            "b9000564747970656473796e636873656e6465724964616168746172676574496461626a646f63756d65\
             6e744964781a7033753550684e3977724e7073474377666b656566324c7a4639646461746143430001",
        );
        let envelope = read(&frame).expect("a frame");
        assert_eq!(envelope.kind, "sync");
        assert_eq!(envelope.sender, "a");
        assert_eq!(envelope.document, "p3u5PhN9wrNpsGCwfkeef2LzF9");
        assert_eq!(envelope.data, [0x43, 0x00, 0x01]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut frame = before_data("request", "me", "you", "doc");
        data_head(&mut frame, 300);
        frame.extend_from_slice(&[7; 300]);
        let envelope = read(&frame).expect("a frame");
        assert_eq!((envelope.kind, envelope.document), ("request", "doc"));
        assert_eq!(envelope.data, [7; 300]);
        assert_eq!(read(&join("me")).expect("a frame").sender, "me");
    }

    #[test]
    fn a_cut_frame_is_an_error_at_every_length() {
        let frame = join("someone");
        for length in 0..frame.len() {
            assert!(read(&frame[..length]).is_err());
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex")
        };
        digits.chunks(2).map(pair).collect()
    }
}
