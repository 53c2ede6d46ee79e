//! UDP flows that are allowed all the while never lose a datagram, whatever changes around them.

use std::time::Duration;

use crate::harness::{Link, Said, Setup, is_emulated};

/// Sends a number every few milliseconds on one socket to each address given, by `send` and by `sendto`, until it is told to stop.
/// Prints how many were sent, how many of them were refused, and how many did not come back.
const TALK: &str = "
import select, socket, sys, time
def flow(address, connected):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind(('', 0))
    if connected:
        udp.connect((address, 123))
    udp.setblocking(False)
    return udp, (address, 123), connected, set(), []
found = [info[4][0] for name in sys.argv[1:] for info in socket.getaddrinfo(name, 123, socket.AF_UNSPEC, socket.SOCK_DGRAM)]
flows = [flow(address, connected) for address in found for connected in (True, False)]
def hear():
    for udp, to, connected, missing, refused in flows:
        while True:
            try:
                missing.discard(int(udp.recv(100)))
            except BlockingIOError:
                break
number = 0
print('talking', flush=True)
while not select.select([sys.stdin], [], [], 0.003)[0]:
    hear()
    # What waits at the other side must fit there, also where the machine stands still for a while.
    if max(len(missing) for udp, to, connected, missing, refused in flows) > 10:
        continue
    number += 1
    for udp, to, connected, missing, refused in flows:
        missing.add(number)
        try:
            message = str(number).encode()
            udp.send(message) if connected else udp.sendto(message, to)
        except OSError as e:
            refused.append((number, str(e)))
for _ in range(30):
    time.sleep(0.1)
    hear()
for udp, to, connected, missing, refused in flows:
    if missing:
        print(to[0], 'connected' if connected else 'unconnected', sorted(missing)[:9], refused[:3])
print(number)
";

/// Allow all of it, each by other rules; what is open by a name outlives its TTL.
const POLICIES: [&str; 3] = [
    r#"{egress: [{to: [{domainNames: ["*.ttl1.fresh.test"]}, {cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}]}]}"#,
    r#"{egress: [{to: [{domainNames: ["**.fresh.test"]}, {cidr: 198.18.1.1/32}, {cidr: "2001:db8:18:7::1/128"}], ports: [{protocol: UDP, port: 123}]},
                 {action: Deny, to: [{cidr: 198.18.2.0/24}]}]}"#,
    r#"{egress: [{to: [{domainNames: ["n1.ttl1.fresh.test", "n2.ttl1.fresh.test"]}, {cidr: 198.18.0.0/23}, {cidr: "2001:db8:18:7::/64"}], ports: [{protocol: UDP}]}]}"#,
];

fn nothing_is_lost(link: Link) {
    let mut setup = Setup::with_link(link);
    setup.enforce(POLICIES[0]);
    setup.settle(POLICIES[0]);
    let to = ["198.18.1.1", "2001:db8:18:7::1", "n1.ttl1.fresh.test"];
    let mut talk =
        Said::start(setup.pod.command("python3".as_ref(), &[&["-c", TALK], to.as_slice()].concat()));
    assert_eq!(talk.next(), "talking");
    for turn in 1..if is_emulated() { 18 } else { 40 } {
        let policy = POLICIES[turn % POLICIES.len()];
        setup.enforce(policy);
        setup.settle(policy);
        if turn % 8 == 0 {
            setup.restart_agent();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut missing = talk.end();
    let sent = missing.pop().expect("a number");
    assert_eq!(missing, [""; 0], "of {sent} in each flow");
    let sent: u32 = sent.parse().expect("a number");
    println!("{sent} datagrams of each of {} flows", 2 * (to.len() + 1));
    assert!(sent > 100, "{sent} are too few to show anything");
    // Though by a name that nobody may connect to any more.
    assert_eq!(setup.pod.connect_one("udp://198.18.64.1:123"), "denied");
}

#[test]
fn a_flow_loses_nothing_while_policies_change_and_agents_come_and_go() {
    nothing_is_lost(Link::Direct);
}

#[test]
fn nor_behind_the_backstop() {
    nothing_is_lost(Link::ByNode);
}
