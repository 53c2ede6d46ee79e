//! A live connection whose way becomes narrower: a router says so by ICMP, and it goes on with smaller packets.

use crate::harness::{Beyond, Link, Said, Setup};

/// Counts what is in each line that comes, and says it.
const COUNT: &str = "
import socket, threading
def serve(peer):
    for line in peer.makefile('rb'):
        peer.sendall(b'%d\\n' % len(line))
s = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";
/// Sends a line of 100,000 bytes, and again whenever it is told to go on; says what was counted, and what the kernel holds the way
/// to carry.
const SEND: &str = "
import socket, sys
MTU = (socket.IPPROTO_IPV6, 24) if ':' in sys.argv[1] else (socket.IPPROTO_IP, 14)
s = socket.create_connection((sys.argv[1], 80), timeout=20)
counted = s.makefile('rb')
while True:
    try:
        s.sendall(b'x' * 99999 + b'\\n')
        said = counted.readline().decode().strip()
    except OSError as e:
        said = type(e).__name__
    print(said, s.getsockopt(*MTU), flush=True)
    if not sys.stdin.readline():
        break
";

fn goes_on(link: Link, address: &str) {
    let policy =
        r#"{egress: [{to: [{cidr: 203.0.113.0/24}, {cidr: "2001:db8:77::/64"}], ports: [{port: 80}]}]}"#;
    let mut setup = Setup::with_link(link);
    let beyond = Beyond::new(&setup.pod);
    let mut command = beyond.command("python3".as_ref());
    command.args(["-c", COUNT]);
    let mut server = Said::start(command);
    assert_eq!(server.next(), "listening");
    setup.enforce(policy);
    setup.settle(policy);
    let mut sending = Said::start(setup.pod.command("python3".as_ref(), &["-c", SEND, address]));
    assert_eq!(sending.next(), "100000 1500");
    beyond.narrow(1300);
    sending.go_on();
    assert_eq!(sending.next(), "100000 1300");
    // A new policy changes nothing about that.
    setup.enforce(policy);
    setup.settle(policy);
    sending.go_on();
    assert_eq!(sending.next(), "100000 1300");
}

#[test]
fn a_connection_goes_on_with_smaller_packets() {
    for address in ["203.0.113.1", "2001:db8:77::1"] {
        goes_on(Link::Direct, address);
    }
}

#[test]
fn a_connection_goes_on_with_smaller_packets_behind_the_backstop() {
    for address in ["203.0.113.1", "2001:db8:77::1"] {
        goes_on(Link::ByNode, address);
    }
}
