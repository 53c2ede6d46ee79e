//! One cell of the table: what a client must find, and what it must reach then.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::block::Block;
use crate::client::{Answer, Client, Question};
use crate::environment::Environment;
use crate::resolver::Resolver;

/// What takes less did not wait for an answer, which takes three seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A cell that passes, or why not.
pub type Verdict = Result<(), Shortfall>;

/// Why a cell does not pass.
#[derive(Clone, Debug)]
pub enum Shortfall {
    /// The client or the resolver has no such thing; never because an answer or a packet of l7egg's is wrong.
    NotApplicable(String),
    /// It should have, and did not.
    Failed(String),
}

/// A client in a pod that one resolver serves. All texts are filled in by the cell's block.
pub struct Cell<'a> {
    /// The pod and the resolver.
    pub environment: &'a Environment<'a>,
    /// Who asks.
    pub client: Client,
    /// The zone and the addresses.
    pub block: Block,
}

impl Cell<'_> {
    /// The name has these addresses and no others, and each is reached by the first SYN.
    pub fn opens(&self, question: Question, addresses: &str) -> Verdict {
        self.resolves(question, addresses, "ok")
    }

    /// The name has these addresses, as it would without l7egg, and none can be reached.
    pub fn denies(&self, question: Question, addresses: &str) -> Verdict {
        self.resolves(question, addresses, "denied")
    }

    /// The resolver's word that there is no such address arrives.
    pub fn has_none(&self, question: Question) -> Verdict {
        let question = self.fill(question);
        match self.client.ask(self.environment, &question)? {
            Answer::Nothing => Ok(()),
            other => fail(format!("{question}: no address expected, got {other}")),
        }
    }

    /// The question is not answered with an address, and the client knows it at once.
    pub fn refuses(&self, question: Question) -> Verdict {
        let question = self.fill(question);
        let begun = Instant::now();
        let answer = self.client.ask(self.environment, &question)?;
        match (answer, begun.elapsed()) {
            (Answer::Nothing | Answer::Failed(_), took) if took < AT_ONCE => Ok(()),
            (answer, took) => fail(format!("{question}: to be refused, got after {took:?}: {answer}")),
        }
    }

    /// The addresses can be reached, without another question.
    pub fn reaches(&self, addresses: &str) -> Verdict {
        self.connects(addresses, "ok")
    }

    /// They cannot.
    pub fn is_denied(&self, addresses: &str) -> Verdict {
        self.connects(addresses, "denied")
    }

    /// A connection to an address that is open already goes on while something else happens.
    pub fn keeps_open(&self, address: &str, meanwhile: impl FnOnce() -> Verdict) -> Verdict {
        let held = self.environment.pod().hold(&format!("tcp://{}:80", self.block.fill(address)));
        let verdict = meanwhile();
        let report = held.end();
        if report["outcome"] == "ok" { verdict } else { fail(format!("the live connection: {report}")) }
    }

    /// Makes the cell not applicable to some clients.
    pub fn not_for(&self, clients: &[Client], reason: &str) -> Verdict {
        if clients.contains(&self.client) { not_applicable(reason) } else { Ok(()) }
    }

    /// Makes the cell not applicable to a resolver.
    pub fn not_with(&self, resolver: Resolver, reason: &str) -> Verdict {
        if self.environment.resolver == resolver { not_applicable(reason) } else { Ok(()) }
    }

    fn resolves(&self, question: Question, addresses: &str, outcome: &str) -> Verdict {
        let question = self.fill(question);
        match self.client.ask(self.environment, &question)? {
            Answer::Addresses(found) => {
                self.compare(found, addresses, outcome).or_else(|error| fail(format!("{question}: {error}")))
            }
            other => fail(format!("{question}: {other}")),
        }
    }

    fn connects(&self, addresses: &str, outcome: &str) -> Verdict {
        let targets = self.block.addresses(addresses);
        let found = self.environment.connect(&targets);
        self.compare(found, addresses, outcome).or_else(fail)
    }

    fn fill(&self, question: Question) -> Question {
        let names = question.names.iter().map(|name| self.block.fill(name)).collect();
        let search = question.search.as_ref().map(|search| self.block.fill(search));
        Question { names, search, ..question }
    }

    fn compare(&self, found: Vec<(IpAddr, String)>, addresses: &str, outcome: &str) -> Result<(), String> {
        let mut expected: Vec<_> =
            self.block.addresses(addresses).into_iter().map(|each| (each, outcome.to_owned())).collect();
        let mut found = found;
        expected.sort();
        found.sort();
        if found == expected {
            return Ok(());
        }
        let missing: Vec<_> = expected.iter().filter(|each| !found.contains(each)).collect();
        let instead: Vec<_> = found.iter().filter(|each| !expected.contains(each)).collect();
        Err(format!("missing {missing:?}, instead {instead:?}"))
    }
}

/// The shortfall of what cannot be.
pub fn not_applicable<T>(reason: impl Into<String>) -> Result<T, Shortfall> {
    Err(Shortfall::NotApplicable(reason.into()))
}

/// The shortfall of what should be.
pub fn fail<T>(what: impl Into<String>) -> Result<T, Shortfall> {
    Err(Shortfall::Failed(what.into()))
}
