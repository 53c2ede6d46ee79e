//! Queries that are refused are answered at once, on the host's side of the pod's interface.

use std::time::{Duration, Instant};

use crate::harness::{RESOLVERS, Setup};

const REFUSING: &str = "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
/// Far below any client's timeout. As dig says it: where the processor is emulated dig itself takes a second.
const AT_ONCE_MS: u32 = 500;
/// Below dig's timeout.
const BEFORE_A_TIMEOUT: Duration = Duration::from_millis(2800);

#[test]
fn a_refused_query_is_answered_at_once() {
    let setup = Setup::on_node(REFUSING);
    for server in RESOLVERS {
        for options in [&["+noedns"][..], &["+edns=0", "+bufsize=4096"], &["+nordflag"]] {
            let (said, _) = ask(&setup, server, "secret-in-a-name.elsewhere.test", options);
            assert!(said.contains("status: REFUSED"), "{server} {options:?}: {said}");
            assert!(said.contains("QUERY: 1, ANSWER: 0"), "{said}");
            assert!(waited_ms(&said) < AT_ONCE_MS, "{server} {options:?}: {said}");
        }
        let (said, _) = ask(&setup, server, "n1.fresh.test", &[]);
        assert!(said.contains("status: NOERROR"), "{server}: {said}");
    }
}

#[test]
fn the_longest_name_is_answered_too() {
    let setup = Setup::on_node(REFUSING);
    let label = "x".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    for server in RESOLVERS {
        let (said, _) = ask(&setup, server, &name, &[]);
        assert!(said.contains("status: REFUSED"), "{server}: {said}");
        assert!(waited_ms(&said) < AT_ONCE_MS, "{said}");
    }
}

#[test]
fn checksums_are_right_where_no_hardware_makes_them() {
    let setup = Setup::on_node(REFUSING);
    setup.pod.without_checksum_offload();
    for server in RESOLVERS {
        for name in ["a.elsewhere.test", "ab.elsewhere.test"] {
            let (said, _) = ask(&setup, server, name, &[]);
            assert!(said.contains("status: REFUSED"), "{server}: {said}");
            assert!(waited_ms(&said) < AT_ONCE_MS, "{said}");
        }
    }
}

#[test]
fn the_response_code_can_be_chosen() {
    let setup = Setup::on_node(
        "{dns: {refuseUnmatched: true, refusalCode: NXDOMAIN}, egress: [{to: [{domainNames: [a.test]}]}]}",
    );
    let (said, _) = ask(&setup, RESOLVERS[0], "elsewhere.test", &[]);
    assert!(said.contains("status: NXDOMAIN"), "{said}");
}

#[test]
fn a_connection_on_which_a_query_was_refused_is_reset() {
    let setup = Setup::on_node(REFUSING);
    for server in RESOLVERS {
        let (said, took) = ask(&setup, server, "elsewhere.test", &["+tcp"]);
        assert!(!said.contains("status:"), "{server}: {said}");
        assert!(took < BEFORE_A_TIMEOUT, "{server}: {took:?}: {said}");
        let (said, _) = ask(&setup, server, "n1.fresh.test", &["+tcp"]);
        assert!(said.contains("status: NOERROR"), "{server}: {said}");
    }
}

#[test]
fn nothing_is_refused_where_nothing_is_enforced() {
    let setup = Setup::on_node(&REFUSING.replacen('{', "{mode: Audit, ", 1));
    let (said, _) = ask(&setup, RESOLVERS[0], "n1.other.test", &[]);
    assert!(!said.contains("status: REFUSED") && said.contains("status:"), "{said}");
}

/// How long dig waited for the answer.
fn waited_ms(said: &str) -> u32 {
    let line = said.lines().find_map(|line| line.strip_prefix(";; Query time: "));
    let number = line.and_then(|line| line.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no time in {said}"))
}

/// What dig prints, and how long it takes.
fn ask(setup: &Setup, server: &str, name: &str, options: &[&str]) -> (String, Duration) {
    let server = format!("@{server}");
    let begun = Instant::now();
    let mut dig = setup.pod.command("dig".as_ref(), &["+tries=1", "+timeout=3", &server, name]);
    let output = dig.args(options).output().expect("dig (package bind9-dnsutils)");
    (String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
}
