//! Other programs beside ours on the node's side of a pod's interface: they come before the backstop, or remove it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use l7egg_node_agent::datapath::{Datapath, Mended};
use l7egg_node_agent::netns::FilterWatch;
use l7egg_node_agent::netns::tc::{self, Direction, Method, Program, Target};

use crate::harness::{Setup, VerdictProgram, run};
use crate::sandbox::sent_raw;

/// Puts a program before all others where the pod's packets come out, or takes it away.
fn overrule(setup: &Setup, name: &str, pins: &Path, is_wanted: bool) {
    let (node, verdict) = (setup.pod.node_netns(), VerdictProgram::overrule());
    let done = node.run(|| {
        // SAFETY: a valid C string.
        let interface = unsafe { libc::if_nametoindex(c"pod".as_ptr()) };
        let target = Target::new(interface, &node, pins);
        let program = Program { fd: verdict.fd(), name, direction: Direction::Ingress };
        match is_wanted {
            true => tc::attach(Method::of_this_kernel(), program, target),
            false => tc::detach(name, Direction::Ingress, target),
        }
    });
    done.expect("the node's namespace").expect("a change");
}

#[test]
fn what_comes_before_the_backstop_is_overtaken() {
    let mut setup = Setup::on_node("{egress: []}");
    let pins = setup.bpffs().join("others");
    assert_eq!(sent_raw(&setup), ["ARP"]);
    for other in ["policy", "policy2"] {
        overrule(&setup, other, &pins, true);
        assert_eq!(sent_raw(&setup), ["secret", "ARP"], "the backstop is not asked");
        let mended = setup.mend();
        let what = mended.overtaken.get(setup.pod.uid()).expect("the pod").clone();
        assert!(what.starts_with("ingress of interface pod: "), "{what}");
        if Method::of_this_kernel() == Method::Clsact {
            assert!(what.contains(&format!("filter {other} of priority 1 (handle 0x")), "{what}");
        }
        let overtaken = BTreeMap::from([(setup.pod.uid().to_owned(), what)]);
        assert_eq!(mended, Mended { overtaken, ..Mended::default() });
        setup.try_cover();
        assert_eq!(sent_raw(&setup), ["ARP"], "it is asked first");
        assert_eq!(setup.mend(), Mended::default());
    }
    // A later agent, too, finds nothing but what it knows.
    setup.restart_agent();
    setup.try_cover();
    assert_eq!(setup.mend(), Mended::default());
    assert_eq!(sent_raw(&setup), ["ARP"]);
    setup.remove_everything();
    assert_eq!(sent_raw(&setup), ["secret", "ARP"]);
    ["policy", "policy2"].iter().for_each(|other| overrule(&setup, other, &pins, false));
    assert!(!setup.backstop().contains(&"leaving".to_owned()), "{:?}", setup.backstop());
}

#[test]
fn filters_that_somebody_removes_are_put_back_at_once() {
    if Method::of_this_kernel() == Method::Tcx {
        println!("skipped: this kernel has tcx, where nobody's filters are beside others'");
        return;
    }
    let mut setup = Setup::on_node("{egress: []}");
    let node = setup.pod.node_netns();
    let watch = node.run(FilterWatch::open).expect("the node's namespace").expect("a socket");
    let pods = BTreeSet::from([setup.pod.uid().to_owned()]);
    for command in
        [&["filter", "del", "dev", "pod", "egress"][..], &["filter", "del", "dev", "pod", "ingress"][..]]
    {
        node.run(|| run("tc", command)).expect("the node's namespace");
        let start = Instant::now();
        let changed = watch.wait().expect("to hear of it");
        assert_eq!(setup.kernel.pods_at(&changed), pods);
        let backstops = pods.clone();
        assert_eq!(setup.mend_backstops(&pods), Mended { backstops, ..Mended::default() });
        setup.try_cover();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(setup.backstop(), ["clsact", "entering", "leaving"]);
        // What the agent itself has done is told as well, and is nothing.
        assert_eq!(setup.kernel.pods_at(&watch.wait().expect("to hear of it")), pods);
        assert_eq!(setup.mend_backstops(&pods), Mended::default());
    }
    assert_eq!(sent_raw(&setup), ["ARP"]);
}
