//! Programs that resolve with a library, as nearly all do: see `lookup.c` and `lookup.go`.

use super::{Answer, Edns, Kind, Question};
use crate::cell::{Shortfall, not_applicable};
use crate::environment::Environment;

/// Resolver libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The GNU C library of Debian 12.
    Glibc,
    /// musl of Debian 12, as in Alpine's images of its time.
    Musl,
    /// Go's net package without cgo.
    Go,
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Glibc, Self::Musl, Self::Go];
}

/// Asks, and connects to what it finds.
pub fn ask(environment: &Environment, library: Library, question: &Question) -> Result<Answer, Shortfall> {
    let mut options = String::from("attempts:1 timeout:3");
    match (question.kind, library) {
        (Kind::Https | Kind::Svcb, _) => return not_applicable("resolver libraries ask only for addresses"),
        (_, Library::Musl) if question.tcp => return not_applicable("musl 1.2.3 has no DNS over TCP"),
        _ => {}
    }
    match (question.edns, library) {
        (Edns::Large | Edns::Usual, Library::Musl) => {
            return not_applicable("musl has no EDNS");
        }
        (Edns::Large, _) => return not_applicable("offers 1,200 (glibc) or 1,232 bytes (Go), no more"),
        (Edns::Usual, _) => options.push_str(" edns0"),
        (Edns::Default, _) => {}
    }
    if question.idna && library != Library::Glibc {
        return not_applicable("leaves IDNA to the application");
    }
    if question.tcp {
        options.push_str(" use-vc");
    }
    let mut settings = format!("nameserver {}\n", environment.server(question.over_ipv6));
    if question.second_resolver {
        settings.push_str(&format!("nameserver {}\n", environment.server(true)));
    }
    if let Some(search) = &question.search {
        options.push_str(" ndots:2");
        settings.push_str(&format!("search {search}\n"));
    }
    environment.pod().set_resolv_conf(&format!("{settings}options {options}\n"));
    let family = match question.kind {
        Kind::A => "4",
        Kind::Aaaa => "6",
        _ => "any",
    };
    let names = question.names.iter().map(String::as_str);
    let arguments: Vec<_> = [family].into_iter().chain(names).collect();
    Ok(read(&environment.run(environment.programs.lookup(library), &arguments)))
}

/// What the program prints.
pub fn read(output: &str) -> Answer {
    let mut addresses = Vec::new();
    for line in output.lines() {
        let Some((address, outcome)) = line.split_once(' ') else { return Answer::Failed(output.to_owned()) };
        match (address.parse(), outcome) {
            (Ok(address), outcome) => addresses.push((address, outcome.to_owned())),
            (Err(_), "nothing") => return Answer::Nothing,
            (Err(_), why) => return Answer::Failed(why.to_owned()),
        }
    }
    Answer::Addresses(addresses)
}
