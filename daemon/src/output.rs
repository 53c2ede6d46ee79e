//! What commands say to whoever called them. `print!` panics where nobody reads it any more, as behind `| head -1`.

use std::io::{self, ErrorKind, Write};

/// Writes to standard output. Whether somebody still reads that: who has gone away has read enough, which is no error.
///
/// # Errors
/// It cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> io::Result<bool> {
    print_to(io::stdout().lock(), text)
}

/// Writes to standard error. Where that cannot be done, there is nobody left to be told.
pub fn eprint(text: &str) {
    let _ = print_to(io::stderr().lock(), text);
}

fn print_to(mut out: impl Write, text: &str) -> io::Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Read};

    use super::*;

    #[test]
    fn who_goes_away_has_read_enough() {
        let (mut reader, writer) = io::pipe().unwrap();
        assert!(print_to(&writer, "a line\n").unwrap());
        reader.read_exact(&mut [0; 7]).unwrap();
        drop(reader);
        assert!(!print_to(&writer, "a line\n").unwrap());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(print_to(full, "a line\n").is_err());
    }
}
