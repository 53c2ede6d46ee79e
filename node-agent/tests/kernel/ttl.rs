//! How long an answer of a real DNS server opens new connections: its TTL within `minTTL` and `maxTTL`, and then `ttlGrace`.

use std::time::{Duration, Instant};

use l7egg_policy::CompiledPolicy;

use crate::harness::{Held, Setup, policy, together};

/// One name with a TTL of a second, one of an hour.
const ZONE: &str = "second.ttl.test. 1 IN A 198.18.21.1\nhour.ttl.test. 3600 IN A 198.18.21.2
now.ttl.test. 0 IN A 198.18.21.3\n";
/// Between what is expected to happen and looking whether it did.
const MARGIN: Duration = Duration::from_millis(300);

/// A pod that has learned an address, by a connection that it holds since.
struct Learned {
    setup: Setup,
    held: Held,
    address: &'static str,
    /// The answer arrived between these moments.
    between: [Instant; 2],
}

impl Learned {
    fn under(policy: &CompiledPolicy, name: &str, address: &'static str) -> Self {
        let mut setup = Setup::new();
        setup.pod.set_names(ZONE);
        setup.enforce_compiled(policy);
        let before = Instant::now();
        let held = setup.pod.hold(&format!("tcp4://{name}:80"));
        Self { setup, held, address, between: [before, Instant::now()] }
    }

    /// Has new connections allowed for this long after the answer, asking at `early`, when something else would have ended it; and
    /// not afterwards, when the one that is open goes on.
    fn lasts(self, time: Duration, early: Duration) {
        assert!(early + MARGIN < time);
        self.wait_until(early);
        let outcome = self.connect();
        // What took longer says nothing.
        if self.between[0].elapsed() < time {
            assert_eq!(outcome, "ok", "{early:?} after the answer");
        }
        self.wait_until(time);
        assert_eq!(self.connect(), "denied", "{time:?} after the answer");
        assert_eq!(self.held.end()["outcome"], "ok", "a TTL ends no live connection");
    }

    fn wait_until(&self, since_answer: Duration) {
        std::thread::sleep(
            (self.between[1] + since_answer + MARGIN).saturating_duration_since(Instant::now()),
        );
    }

    fn connect(&self) -> String {
        self.setup.pod.connect_one(&format!("tcp://{}:80", self.address))
    }
}

fn second(yaml: &str) -> Learned {
    Learned::under(&policy(yaml), "second.ttl.test", "198.18.21.1")
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn within_the_grace_new_connections_are_allowed() {
    let learned =
        second("{dns: {minTTL: 0s, ttlGrace: 5s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}");
    // Without it the TTL would have ended it by now, or the node's own shortest time, two seconds.
    learned.lasts(s(6), s(2));
}

#[test]
fn min_ttl_lengthens() {
    second("{dns: {minTTL: 6s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}").lasts(s(6), s(2));
}

#[test]
fn min_ttl_of_an_egg_goes_below_that_of_the_node() {
    let learned = second("{dns: {minTTL: 0s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}");
    let begun = learned.between[0];
    learned.wait_until(s(1));
    let outcome = learned.connect();
    // The node's two seconds would end it as well.
    if begun.elapsed() < s(2) {
        assert_eq!(outcome, "denied");
    }
    assert_eq!(learned.held.end()["outcome"], "ok");
}

#[test]
fn a_ttl_of_zero_is_for_the_connection_that_it_was_asked_for() {
    let yaml = "{dns: {minTTL: 0s, ttlGrace: 0s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}";
    Learned::under(&policy(yaml), "now.ttl.test", "198.18.21.3").lasts(s(1), s(0));
}

#[test]
fn max_ttl_shortens() {
    let policy = policy("{dns: {maxTTL: 2s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}");
    Learned::under(&policy, "hour.ttl.test", "198.18.21.2").lasts(s(2), s(0));
}

#[test]
fn of_several_eggs_the_longest_least_the_shortest_most_and_the_longest_grace_hold() {
    let policy = together(&[
        "{dns: {minTTL: 60s, maxTTL: 120s, ttlGrace: 0s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}",
        "{dns: {minTTL: 0s, maxTTL: 2s, ttlGrace: 4s}, egress: []}",
        // It does not decide where another does.
        "{mode: Audit, dns: {maxTTL: 1s, ttlGrace: 60s}, egress: []}",
    ]);
    // maxTTL wins over minTTL: two seconds, and four.
    Learned::under(&policy, "second.ttl.test", "198.18.21.1").lasts(s(6), s(5));
}

#[test]
fn eggs_that_are_only_watched_decide_where_there_are_no_others() {
    // Nothing is denied, so what is recorded says what would have been.
    use l7egg_ebpf_common::abi::Counter;
    use l7egg_node_agent::datapath::Datapath;
    let policy = policy("{mode: Audit, dns: {maxTTL: 2s}, egress: [{to: [{domainNames: ['*.ttl.test']}]}]}");
    let learned = Learned::under(&policy, "hour.ttl.test", "198.18.21.2");
    let recorded = || learned.setup.kernel.counters().expect("the counters")[Counter::AuditDenied as usize];
    let before = recorded();
    learned.wait_until(s(2));
    assert_eq!(learned.connect(), "ok");
    assert!(recorded() > before, "it would have been denied");
}
