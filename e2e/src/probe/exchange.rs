//! A message over TCP and its echo, and what kept it waiting: the network and this host, or only a machine that had something else to do.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::race::total_retransmissions;

/// What it took until the echo was there.
pub struct Exchange {
    /// From the message to its echo.
    pub took: Duration,
    /// How many segments were sent again for it.
    pub sent_again: u32,
    /// Whether this host kept the message: what it refuses to send is tried again later, and is not counted as sent again.
    pub was_kept: bool,
}

/// Sends a message on a connection on which nothing is under way, and reads its echo.
pub fn exchange(mut stream: &TcpStream, message: &[u8]) -> io::Result<Exchange> {
    let (start, before) = (Instant::now(), total_retransmissions(stream)?);
    stream.write_all(message)?;
    let was_kept = not_sent(stream)? > 0;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    if answer != message {
        return Err(io::Error::other("another answer than the message that was sent"));
    }
    let sent_again = total_retransmissions(stream)?.saturating_sub(before);
    Ok(Exchange { took: start.elapsed(), sent_again, was_kept })
}

/// How many bytes of what was written have not been sent yet.
fn not_sent(stream: &TcpStream) -> io::Result<libc::c_int> {
    /// `include/uapi/linux/sockios.h`.
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), SIOCOUTQNSD as _, &raw mut bytes) };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}
