//! A pod with one resolver beside it.

use std::net::IpAddr;
use std::path::PathBuf;

use l7egg_crds::PolicySpec;
use l7egg_policy::{DomainName, ResolvConf, Source, compile};

use crate::client::{Answer, Library, read_lookup};
use crate::harness::{Link, Pod, Setup};
use crate::programs::Programs;
use crate::resolver::{Resolver, Servers};

/// Addresses of the resolver that the pod uses.
pub const SERVER: [&str; 2] = ["198.18.0.61", "2001:db8:18::61"];

/// Seconds that a program in the pod may take: more than its own time limit, which is three.
const LIMIT: &str = "8";

/// The pod, its programs in the kernel, and the resolver.
pub struct Environment<'a> {
    /// Which resolver it is.
    pub resolver: Resolver,
    /// What can be run.
    pub programs: &'a Programs,
    // Before the pod, whose namespaces they run in.
    _servers: Servers,
    setup: Setup,
}

impl<'a> Environment<'a> {
    /// Starts the resolver with these records, in the form of a zone file's lines.
    pub fn new(programs: &'a Programs, resolver: Resolver, records: &[String]) -> Self {
        // With the backstop, which answers queries that are refused.
        let setup = Setup::with_link(Link::ByNode);
        // Answers over TCP come in as many segments as on a real network.
        setup.pod.without_offload();
        let servers = Servers::start(resolver, programs, &setup.pod, records);
        Self { resolver, programs, _servers: servers, setup }
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.setup.pod
    }

    /// The resolver's address.
    pub fn server(&self, over_ipv6: bool) -> &'static str {
        SERVER[usize::from(over_ipv6)]
    }

    /// Enforces the spec of an Egg for the pod, which has these search domains.
    pub fn enforce(&mut self, yaml: &str, search: &str) {
        let spec: PolicySpec = serde_yaml::from_str(yaml).expect("a behaviour's policy");
        let servers = SERVER.iter().map(|each| each.parse().expect("an address"));
        let source = Source { name: "Egg test/conformance".into(), spec: &spec };
        let search = search.split(' ').map(|domain| DomainName::parse(domain).expect("a search domain"));
        let conf = ResolvConf { search: search.collect(), ..ResolvConf::of_servers(servers) };
        let policy = compile(&[source], &conf).expect("a valid policy");
        self.setup.enforce_compiled(&policy);
    }

    /// Runs a program in the pod; what it prints.
    pub fn run(&self, program: PathBuf, arguments: &[&str]) -> String {
        // Some clients wait for an answer over TCP without end.
        let program = program.to_string_lossy();
        let limited = [&[LIMIT, &program], arguments].concat();
        let mut command = self.pod().command("timeout".as_ref(), &limited);
        // Names on the command line are in UTF-8.
        let output = command.env("LC_ALL", "C.UTF-8").output().expect("a program in the pod");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Connects from the pod to each address.
    pub fn connect(&self, addresses: &[IpAddr]) -> Vec<(IpAddr, String)> {
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        let arguments: Vec<_> = ["any"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
        match read_lookup(&self.run(self.programs.lookup(Library::Glibc), &arguments)) {
            Answer::Addresses(outcomes) => outcomes,
            other => panic!("{addresses:?}: {other}"),
        }
    }

    /// How many TCP connections the resolver and the test world have accepted (`PassiveOpens` of
    /// `/proc/net/snmp`: RFC 1213).
    pub fn accepted(&self) -> u64 {
        let output = self.pod().in_world("cat".as_ref()).arg("/proc/net/snmp").output().expect("cat");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp: ")).map(|line| line.split(' '));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = names.zip(values).find(|(name, _)| *name == "PassiveOpens").expect("a count").1;
        value.parse().expect("a number")
    }
}
