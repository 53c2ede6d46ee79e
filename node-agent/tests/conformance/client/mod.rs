//! The clients, and what one can ask them for.

mod dig;
mod stub;

use std::fmt;
use std::net::IpAddr;

use crate::cell::Shortfall;
use crate::environment::Environment;
pub use dig::Tool;
pub use stub::{Library, read as read_lookup};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A program with a resolver library.
    Stub(Library),
    /// A program that asks over UDP, and over TCP where an answer is truncated.
    Udp(Tool),
    /// The same program, asking over TCP.
    Tcp(Tool),
}

impl Client {
    /// glibc's getaddrinfo.
    pub const GLIBC: Self = Self::Stub(Library::Glibc);
    /// musl's getaddrinfo.
    pub const MUSL: Self = Self::Stub(Library::Musl);
    /// Go's own resolver.
    pub const GO: Self = Self::Stub(Library::Go);
    /// dig over UDP.
    pub const DIG_UDP: Self = Self::Udp(Tool::Dig);
    /// dig over TCP.
    pub const DIG_TCP: Self = Self::Tcp(Tool::Dig);
    /// kdig over UDP.
    pub const KDIG_UDP: Self = Self::Udp(Tool::Kdig);
    /// kdig over TCP.
    pub const KDIG_TCP: Self = Self::Tcp(Tool::Kdig);
    /// In the order of the table's columns.
    pub const ALL: [Self; 7] =
        [Self::GLIBC, Self::MUSL, Self::GO, Self::DIG_UDP, Self::DIG_TCP, Self::KDIG_UDP, Self::KDIG_TCP];
    /// Those with a resolver library.
    pub const STUBS: [Self; 3] = [Self::GLIBC, Self::MUSL, Self::GO];
    /// Those that ask over TCP whatever the question.
    pub const OVER_TCP: [Self; 2] = [Self::DIG_TCP, Self::KDIG_TCP];

    /// Name, and its abbreviation for the table.
    pub fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Stub(Library::Glibc) => ("glibc getaddrinfo", "gl"),
            Self::Stub(Library::Musl) => ("musl getaddrinfo", "mu"),
            Self::Stub(Library::Go) => ("Go's own resolver", "go"),
            Self::Udp(Tool::Dig) => ("dig over UDP", "du"),
            Self::Tcp(Tool::Dig) => ("dig over TCP", "dt"),
            Self::Udp(Tool::Kdig) => ("kdig over UDP", "ku"),
            Self::Tcp(Tool::Kdig) => ("kdig over TCP", "kt"),
        }
    }

    /// Asks in the pod, and connects at once to every address.
    pub fn ask(self, environment: &Environment, question: &Question) -> Result<Answer, Shortfall> {
        match self {
            Self::Stub(library) => stub::ask(environment, library, question),
            Self::Udp(tool) => dig::ask(environment, tool, false, question),
            Self::Tcp(tool) => dig::ask(environment, tool, true, question),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Both, in parallel.
    Both,
    /// HTTPS records (RFC 9460), for their address hints.
    Https,
    /// SVCB records, for the same.
    Svcb,
}

/// The extension that lets answers over UDP be longer than 512 bytes (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edns {
    /// Whatever the client does of itself.
    Default,
    /// 1,200 or 1,232 bytes, as resolver libraries offer.
    Usual,
    /// 4,096 bytes, and no TCP.
    Large,
}

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Question {
    /// The names; more than one on one connection.
    pub names: Vec<String>,
    /// What is asked for.
    pub kind: Kind,
    /// Over TCP.
    pub tcp: bool,
    /// How long an answer may be.
    pub edns: Edns,
    /// The search list of `resolv.conf`, with `ndots:2`.
    pub search: Option<String>,
    /// At the resolver's IPv6 address.
    pub over_ipv6: bool,
    /// The resolver's IPv6 address is listed after that of IPv4.
    pub second_resolver: bool,
    /// The client makes the name's A-labels.
    pub idna: bool,
}

impl Question {
    /// For IPv4 addresses.
    pub fn a(name: &str) -> Self {
        Self::new(Kind::A, name)
    }

    /// For records of a kind.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            kind,
            tcp: false,
            edns: Edns::Default,
            search: None,
            over_ipv6: false,
            second_resolver: false,
            idna: false,
        }
    }

    /// The same over TCP.
    pub fn over_tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// The same with EDNS.
    pub fn edns(self, edns: Edns) -> Self {
        Self { edns, ..self }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:?}", self.names.join(", "), self.kind)
    }
}

/// What became of a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Addresses, and what became of a connection to each: `ok`, `denied`, `timeout` …
    Addresses(Vec<(IpAddr, String)>),
    /// There is no such name, or no such address.
    Nothing,
    /// No answer, or one that is none.
    Failed(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(found) => write!(out, "{found:?}"),
            Self::Nothing => write!(out, "the resolver says that there is none"),
            Self::Failed(why) => write!(out, "no answer: {why}"),
        }
    }
}
