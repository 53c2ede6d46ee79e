//! Messages that somebody else takes, or keeps, only up to a length.

/// The beginning of a message, in at most so many bytes and whole characters.
#[must_use]
pub fn cut(mut message: String, most: usize) -> String {
    message.truncate(message.floor_char_boundary(most));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_characters() {
        assert_eq!(cut("short".into(), 9), "short");
        assert_eq!(cut("short".into(), 2), "sh");
        assert_eq!(cut("é".repeat(900), 1000).len(), 1000);
        assert_eq!(cut("é".repeat(900), 1001).len(), 1000);
    }
}
