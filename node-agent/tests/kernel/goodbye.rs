//! How connections that were allowed come to their end: the pod's kernel says the last words by sockets of nobody.

use std::process::Command;
use std::time::Duration;

use l7egg_node_agent::datapath::{Cover, Datapath};

use crate::harness::{Link, POD4, POD6, Said, Setup, policy};

/// Takes a connection, and closes it a moment after the other side has.
const SERVE: &str = "
import socket, sys, time
s = socket.create_server(('::', 7001), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    peer, _ = s.accept()
    while peer.recv(100): pass
    time.sleep(0.1)
    peer.close()
";
/// Opens a connection, and closes it when it is told to.
const CONNECT: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7001))
s.send(b'x')
print('connected', flush=True)
sys.stdin.readline()
s.close()
print('closed', flush=True)
";

fn serve(mut command: Command) -> Said {
    command.args(["-c", SERVE]);
    let mut server = Said::start(command);
    assert_eq!(server.next(), "listening");
    server
}

/// How many connections there still wait for the last word.
fn waiting(mut command: Command) -> usize {
    let output = command.args(["-Htn", "state", "last-ack"]).output().expect("ss (iproute2)");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn the_far_end_hears_the_last_word_though_the_name_is_forgotten() {
    for (link, what) in [(Link::Direct, "alone"), (Link::ByNode, "with the backstop")] {
        let mut setup = Setup::with_link(link);
        setup.enforce("{egress: [{to: [{domainNames: ['*.ttl1.fresh.test']}]}]}");
        let _server = serve(setup.pod.in_world("python3".as_ref()));
        let mut open =
            Said::start(setup.pod.command("python3".as_ref(), &["-c", CONNECT, "n1.ttl1.fresh.test"]));
        assert_eq!(open.next(), "connected");
        // Longer than the shortest time that an answer is believed.
        std::thread::sleep(Duration::from_millis(2500));
        open.go_on();
        assert_eq!(open.next(), "closed");
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(waiting(setup.pod.in_world("ss".as_ref())), 0, "{what}");
    }
}

/// Without a socket nobody can tell whose of a pod's containers it was, nor that its policy allows it.
#[test]
fn the_far_end_hears_the_last_word_of_every_container() {
    let app = r#"{egress: [{to: [{cidr: 10.77.0.0/24}, {cidr: "fd77::/64"}]}]}"#;
    for container in ["app", "free"] {
        for address in ["10.77.0.1", "fd77::1"] {
            let mut setup = Setup::with_link(Link::ByNode);
            setup.divide(&[("app", Some(app)), ("free", None), ("other", Some("{egress: []}"))]);
            let _server = serve(setup.pod.in_world("python3".as_ref()));
            setup.pod.enter(container);
            let mut open = Said::start(setup.pod.command("python3".as_ref(), &["-c", CONNECT, address]));
            assert_eq!(open.next(), "connected");
            open.go_on();
            assert_eq!(open.next(), "closed");
            std::thread::sleep(Duration::from_millis(600));
            assert_eq!(waiting(setup.pod.in_world("ss".as_ref())), 0, "{container}, {address}");
        }
    }
}

/// Takes a connection, and closes it when it is told to.
const ACCEPT: &str = "
import socket, sys
s = socket.create_server(('::', 7001), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
s.settimeout(60)
peer, _ = s.accept()
print('connected', flush=True)
sys.stdin.readline()
peer.close()
print('closed', flush=True)
sys.stdin.readline()
";
/// Opens a connection, and closes it a moment after the other side has.
const FOLLOW: &str = "
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7001), 60)
while s.recv(100): pass
time.sleep(0.1)
s.close()
print('closed', flush=True)
";

#[test]
fn the_far_end_hears_the_last_word_of_a_connection_that_came_in_before_the_first_policy() {
    for (link, what) in [(Link::Direct, "alone"), (Link::ByNode, "with the backstop")] {
        for own in [POD4, POD6] {
            let mut setup = Setup::with_link(link);
            let mut server = Said::start(setup.pod.command("python3".as_ref(), &["-c", ACCEPT]));
            assert_eq!(server.next(), "listening");
            let mut command = setup.pod.in_world("python3".as_ref());
            command.args(["-c", FOLLOW, own]);
            let mut client = Said::start(command);
            assert_eq!(server.next(), "connected");
            setup.enforce("{egress: []}");
            assert_eq!(setup.settle("{egress: []}"), 0);
            server.go_on();
            assert_eq!(server.next(), "closed");
            assert_eq!(client.next(), "closed");
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(waiting(setup.pod.in_world("ss".as_ref())), 0, "{what}, {own}");
        }
    }
}

/// As [`ACCEPT`], and says something before.
const TALK: &str = "
import socket, sys
s = socket.create_server(('::', 7001), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
s.settimeout(60)
peer, _ = s.accept()
print('connected', flush=True)
sys.stdin.readline()
peer.send(b'x')
print('sent', flush=True)
sys.stdin.readline()
peer.close()
print('closed', flush=True)
sys.stdin.readline()
";

#[test]
fn the_far_end_hears_the_last_word_though_the_backstop_has_not_seen_the_first() {
    for own in [POD4, POD6] {
        let mut setup = Setup::with_link(Link::ByNode);
        let mut server = Said::start(setup.pod.command("python3".as_ref(), &["-c", TALK]));
        assert_eq!(server.next(), "listening");
        let mut command = setup.pod.in_world("python3".as_ref());
        command.args(["-c", FOLLOW, own]);
        let mut client = Said::start(command);
        assert_eq!(server.next(), "connected");
        // The programs of the cgroup hear it before the backstop is there, as where many pods get their first policy at once.
        let nothing = policy("{egress: []}");
        setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &nothing).expect("a policy in force");
        server.go_on();
        assert_eq!(server.next(), "sent");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(setup.try_cover(), Cover::Whole);
        assert_eq!(setup.settle("{egress: []}"), 0);
        server.go_on();
        assert_eq!(server.next(), "closed");
        assert_eq!(client.next(), "closed");
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(waiting(setup.pod.in_world("ss".as_ref())), 0, "{own}");
    }
}
