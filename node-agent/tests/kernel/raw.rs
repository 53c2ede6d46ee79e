//! Raw sockets: what they send is whatever they like, so nothing may be concluded from it.

use crate::harness::Setup;

/// Sends a TCP segment without SYN from the port of a listener, over IPv4 and IPv6, and says what became of it.
const SEGMENT: &str = "
import socket, struct
listener = socket.create_server(('::', 7777), family=socket.AF_INET6, dualstack_ipv6=True)
segment = struct.pack('!HHIIBBHHH', 7777, 80, 1, 1, 0x50, 0x18, 1024, 0, 0) + b'secret'
for family, address in ((socket.AF_INET, '198.18.0.80'), (socket.AF_INET6, '2001:db8:18::80')):
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    try:
        raw.sendto(segment, (address, 0))
        print('sent')
    except PermissionError:
        print('denied')
";

#[test]
fn a_raw_socket_does_not_pass_for_an_accepted_connection() {
    let setup = Setup::with_policy("{egress: []}");
    let output = setup.pod.command("python3".as_ref(), &["-c", SEGMENT]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "denied\ndenied\n", "{output:?}");
}
