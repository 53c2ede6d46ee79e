//! DNS over TCP (RFC 7766): messages with two bytes of length before each, cut into segments anyhow.
//!
//! A segment is taken in order or not at all: one that comes too early is for the caller to drop, so that the
//! sender repeats it, and one that was seen already says nothing new. So a message is whole in memory before
//! its last segment goes on.

/// Pieces of one message in one segment: two bytes of length and the body, after empty messages.
pub const PIECES_MAX: u32 = 16;

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Sequence number of the next byte.
    next: u32,
    started: u32,
    length_bytes: u32,
    length: u32,
    filled: u32,
    /// Zero.
    reserved: u32,
}

/// What a segment is to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Nobody knows where its bytes belong: the stream has not begun.
    Unknown,
    /// The next bytes; the first so many of them have been seen.
    New(u32),
    /// All of it has been seen.
    Old,
    /// Something before it is missing.
    Early,
}

/// What to do with the next bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Give the next byte to [`Stream::length_byte`].
    Length,
    /// Copy `keep` bytes to `at` in the message, skip those up to `take`; then call [`Stream::body`].
    Body {
        /// Where in the message.
        at: u32,
        /// How many fit there.
        keep: u32,
        /// How many there are.
        take: u32,
    },
}

impl Stream {
    /// Begins with the byte that has this sequence number, the first of the connection: the handshake alone says which that
    /// is. Whatever segment happens to be seen first may be one from the middle of a message, which says what its sender likes.
    #[inline(always)]
    pub fn begin(&mut self, sequence: u32) {
        *self = Self { next: sequence, started: 1, ..Self::default() };
    }

    /// Sorts a segment of `len` bytes in. May be asked again for the same segment, after [`Self::advance`].
    #[inline(always)]
    pub fn accept(&self, sequence: u32, len: u32) -> Segment {
        if self.started == 0 {
            return Segment::Unknown;
        }
        // RFC 9293 §3.4: sequence numbers are compared modulo 2^32.
        let seen = self.next.wrapping_sub(sequence);
        if seen as i32 >= 0 && seen < len {
            Segment::New(seen)
        } else if (seen as i32) < 0 {
            Segment::Early
        } else {
            Segment::Old
        }
    }

    /// Whether a segment from this sequence number on has bytes that were taken.
    #[inline(always)]
    pub fn has_taken(&self, sequence: u32) -> bool {
        self.next.wrapping_sub(sequence) as i32 > 0
    }

    /// So many bytes have been taken.
    #[inline(always)]
    pub fn advance(&mut self, taken: u32) {
        self.next = self.next.wrapping_add(taken);
    }

    /// What the next of `left` bytes are, where `max` bytes of a message are kept.
    #[inline(always)]
    pub fn piece(&self, left: u32, max: u32) -> Piece {
        if self.length_bytes < 2 {
            return Piece::Length;
        }
        let missing = self.length.wrapping_sub(self.filled);
        let take = if left < missing { left } else { missing };
        let room = max.saturating_sub(self.filled);
        Piece::Body { at: self.filled, keep: if take < room { take } else { room }, take }
    }

    /// Takes a byte of the length.
    #[inline(always)]
    pub fn length_byte(&mut self, byte: u8) {
        self.length = self.length << 8 | u32::from(byte);
        self.length_bytes += 1;
        self.filled = 0;
        if self.length_bytes == 2 && self.length == 0 {
            self.length_bytes = 0;
        }
    }

    /// Takes so many bytes of the message; its length if it is complete now.
    #[inline(always)]
    pub fn body(&mut self, take: u32) -> Option<u32> {
        self.filled += take;
        if self.filled < self.length {
            return None;
        }
        let length = self.length;
        self.length = 0;
        self.length_bytes = 0;
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    /// The messages that come out of these segments of (sequence, bytes); early ones are dropped.
    fn run(segments: &[(u32, &[u8])]) -> Vec<Vec<u8>> {
        let mut stream = Stream::default();
        stream.begin(segments[0].0);
        let mut message = vec![0; MAX];
        let mut complete = Vec::new();
        for (sequence, bytes) in segments {
            let Segment::New(skip) = stream.accept(*sequence, bytes.len() as u32) else { continue };
            let mut at = skip as usize;
            stream.advance(bytes.len() as u32 - skip);
            while at < bytes.len() {
                match stream.piece((bytes.len() - at) as u32, MAX as u32) {
                    Piece::Length => {
                        stream.length_byte(bytes[at]);
                        at += 1;
                    }
                    Piece::Body { at: to, keep, take } => {
                        let (to, keep) = (to as usize, keep as usize);
                        message[to..to + keep].copy_from_slice(&bytes[at..at + keep]);
                        at += take as usize;
                        if let Some(len) = stream.body(take) {
                            complete.push(message[..MAX.min(len as usize)].to_vec());
                        }
                    }
                }
            }
        }
        complete
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let bytes: Vec<u8> = [b"\x00\x03one".as_slice(), b"\x00\x00", b"\x00\x05three"].concat();
        let whole = vec![b"one".to_vec(), b"three".to_vec()];
        for cut in 1..bytes.len() {
            for second in cut..bytes.len() {
                let segments = [
                    (u32::MAX - 2, &bytes[..cut]),
                    (u32::MAX.wrapping_add(cut as u32).wrapping_sub(2), &bytes[cut..second]),
                    (u32::MAX.wrapping_add(second as u32).wrapping_sub(2), &bytes[second..]),
                ];
                assert_eq!(run(&segments), whole, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn what_comes_before_the_handshake_was_seen_is_unknown() {
        let mut stream = Stream::default();
        assert_eq!(stream.accept(10, 5), Segment::Unknown);
        stream.begin(10);
        assert_eq!(stream.accept(10, 5), Segment::New(0));
        // And a later one is early, however long nothing else comes.
        assert_eq!(stream.accept(11, 5), Segment::Early);
    }

    #[test]
    fn repeated_overlapping_and_early_segments() {
        assert_eq!(run(&[(10, b"\x00\x04ab"), (10, b"\x00\x04ab"), (12, b"abcd")]), [b"abcd"]);
        assert_eq!(run(&[(10, b"\x00\x04ab"), (15, b"d"), (14, b"cd")]), [b"abcd"]);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let long = [&[0xff, 0xff], vec![7; 0xffff].as_slice(), b"\x00\x01x"].concat();
        assert_eq!(run(&[(0, &long)]), [vec![7; MAX], b"x".to_vec()]);
    }
}
