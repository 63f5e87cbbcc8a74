//! The store's wire protocol (io/xs_wire.h): a header of four words and a payload of at most 4096 bytes.

/// Bytes of a header.
pub const HEADER_SIZE: usize = 16;
/// The most a payload may have.
pub const MAX_PAYLOAD: usize = 4096;

/// Kinds of messages.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Directory = 1,
    Read = 2,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
}

impl Kind {
    /// What a refused request was to do, for messages.
    pub fn verb(self) -> &'static str {
        match self {
            Kind::Directory => "to list",
            Kind::Read => "to read",
            Kind::Watch => "to watch",
            Kind::Unwatch => "to stop watching",
            Kind::TransactionStart => "to begin",
            Kind::TransactionEnd => "to end",
            Kind::Introduce => "to serve",
            Kind::Release => "to release",
            Kind::Write => "to write",
            Kind::Mkdir => "to make",
            Kind::Rm => "to remove",
            Kind::SetPerms => "to set the permissions of",
        }
    }
}

/// An event of a watch, sent unasked.
pub const WATCH_EVENT: u32 = 15;
/// The answer to a request that failed; the payload is the error's name.
pub const ERROR: u32 = 16;

/// A message's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// A [`Kind`], [`WATCH_EVENT`] or [`ERROR`].
    pub kind: u32,
    /// Chosen by the client, echoed in the answer.
    pub request: u32,
    /// Transaction, 0 for none.
    pub transaction: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// As it travels.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        for (to, from) in bytes.chunks_exact_mut(4).zip([self.kind, self.request, self.transaction, self.len]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes
    }

    /// From its bytes; `None` if it announces more than a payload may have.
    pub fn decode(bytes: [u8; HEADER_SIZE]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |n: usize| words.get(n).map_or(0, |w| u32::from_le_bytes(*w));
        let header = Header { kind: word(0), request: word(1), transaction: word(2), len: word(3) };
        (header.len as usize <= MAX_PAYLOAD).then_some(header)
    }
}

/// A request: header and the parts of its payload, one after the other. `None` if it is too long to be sent.
pub fn request(kind: Kind, request: u32, transaction: u32, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > MAX_PAYLOAD {
        return None;
    }
    let header = Header { kind: kind as u32, request, transaction, len: len as u32 };
    let mut message = header.encode().to_vec();
    parts.iter().for_each(|part| message.extend_from_slice(part));
    Some(message)
}

/// The strings of a payload in which each ends with a NUL.
pub fn strings(payload: &[u8]) -> Vec<String> {
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    if payload.is_empty() {
        return Vec::new();
    }
    payload.split(|&b| b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_on_the_wire() {
        let bytes = request(Kind::Write, 7, 9, &[b"/a/b\0", b"value"]).unwrap();
        let mut expected = vec![11, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0];
        expected.extend_from_slice(b"/a/b\0value");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn too_long_requests_are_not_sent() {
        assert!(request(Kind::Write, 0, 0, &[&[b'x'; 4096]]).is_some());
        assert!(request(Kind::Write, 0, 0, &[&[b'x'; 4096], b"y"]).is_none());
    }

    #[test]
    fn headers_that_announce_too_much_are_refused() {
        let header = |len| Header { kind: 2, request: 1, transaction: 0, len }.encode();
        assert!(Header::decode(header(4096)).is_some());
        assert_eq!(Header::decode(header(4097)), None);
    }

    #[test]
    fn strings_end_with_nul() {
        assert_eq!(strings(b"0\0one\0two\0"), ["0", "one", "two"]);
        assert_eq!(strings(b"no end"), ["no end"]);
        assert_eq!(strings(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(strings(b"").is_empty());
        assert!(strings(b"\0").is_empty());
    }

    proptest! {
        #[test]
        fn headers_come_back(kind: u32, request: u32, transaction: u32, len in 0u32..=4096) {
            let header = Header { kind, request, transaction, len };
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
        }
    }
}
