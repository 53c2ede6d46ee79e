//! The far end of a connection that is reset hears of it also where the reset alone does not tell it, and where the programs have
//! never seen the connection.

use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Link, Said, Setup, fail, policy};

const BEFORE: &str = r#"{egress: [{to: [{cidr: 10.77.0.0/24}, {cidr: "fd77::/64"}]}]}"#;
const AFTER: &str = "{egress: []}";

/// Says two things by a connection, the second when it is told to.
const SAY: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7001))
s.send(b'x')
print('connected', flush=True)
sys.stdin.readline()
s.send(b'y')
print('sent', flush=True)
sys.stdin.readline()
";
/// Says how a connection ends.
const HEAR: &str = "
import socket, sys
address = sys.argv[1]
listener = socket.create_server((address, 7001), family=socket.AF_INET6 if ':' in address else socket.AF_INET)
print('listening', flush=True)
peer, _ = listener.accept()
peer.settimeout(20)
try:
    while peer.recv(100): pass
    print('closed')
except OSError as e:
    print(type(e).__name__)
";

/// The reset then is not the next that the other side waits for, so that it asks back.
#[test]
fn the_other_end_notices_if_something_before_the_reset_was_lost() {
    for address in ["10.77.0.1", "fd77::1"] {
        let mut setup = Setup::with_link(Link::ByNode);
        setup.enforce(BEFORE);
        setup.settle(BEFORE);
        let mut command = setup.pod.in_world("python3".as_ref());
        command.args(["-c", HEAR, address]);
        let mut hearing = Said::start(command);
        assert_eq!(hearing.next(), "listening");
        let mut saying = Said::start(setup.pod.command("python3".as_ref(), &["-c", SAY, address]));
        assert_eq!(saying.next(), "connected");
        setup.pod.interrupt(|| {
            saying.go_on();
            assert_eq!(saying.next(), "sent");
            setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &policy(AFTER)).unwrap_or_else(fail);
        });
        assert_eq!(setup.settle(AFTER), 1);
        assert_eq!(hearing.next(), "ConnectionResetError", "{address}");
    }
}

/// The programs have seen nothing of it before.
#[test]
fn the_other_end_notices_of_a_connection_from_before_the_first_policy() {
    for link in [Link::Direct, Link::ByNode] {
        for address in ["10.77.0.1", "fd77::1"] {
            let mut setup = Setup::with_link(link);
            let mut command = setup.pod.in_world("python3".as_ref());
            command.args(["-c", HEAR, address]);
            let mut hearing = Said::start(command);
            assert_eq!(hearing.next(), "listening");
            let mut saying = Said::start(setup.pod.command("python3".as_ref(), &["-c", SAY, address]));
            assert_eq!(saying.next(), "connected");
            setup.enforce(AFTER);
            assert_eq!(setup.settle(AFTER), 1);
            assert_eq!(hearing.next(), "ConnectionResetError", "{address}");
        }
    }
}
