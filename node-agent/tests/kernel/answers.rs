//! The fuzz targets' answers, malformed ones among them, replayed through the real programs: what is learned of each and whether it
//! goes on is what the same walk says in user space, which fuzzing compares with hickory-proto's reading.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use l7egg_ebpf_common::abi::Address;
use l7egg_ebpf_common::answer::{ANSWER_STEPS, AnswerWalk, HEADER, Message, Step, addresses};
use l7egg_ebpf_common::chain::Chain;
use l7egg_ebpf_common::name::{COMPRESSED_STEPS, NameWalk, READ_STEPS, Step as NameStep};
use l7egg_policy::Verdict;

use crate::harness::{Bpffs, RESOLVERS, policy, settings};
use crate::oracle::{Exchange, Runner};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/answer");
/// Every question matches.
const EVERYTHING: &str = "{egress: [{to: [{domainRegex: ['.*']}]}]}";
/// What some of the answers say that the question is an alias of.
pub const ALIASES: [&str; 6] =
    ["n5.test", "b.test", "cdn.example.com", "edge.cdn.net", "www.new.test", "api.example.com"];

/// An answer of the corpus.
pub struct Recorded {
    /// Name of its file.
    pub name: String,
    /// The message.
    pub bytes: Vec<u8>,
    message: Message,
    /// Offset behind the question's name, if that can be read.
    behind_qname: Option<u32>,
}

/// What the programs are to do with an answer.
#[derive(Debug, PartialEq)]
pub struct Meant {
    /// The addresses that are learned.
    pub learned: BTreeSet<Address>,
    /// Whether it goes on to the pod.
    pub verdict: Verdict,
}

/// All of them.
pub fn corpus() -> Vec<Recorded> {
    let entries = fs::read_dir(CORPUS).expect("the corpus").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    assert!(paths.len() > 30, "{CORPUS} has its answers");
    paths.iter().map(|path| Recorded::read(path)).collect()
}

impl Recorded {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("an answer");
        let message = Message::new(&bytes).expect("a short message");
        let is_usable = message.len >= HEADER && message.header().is_usable_answer();
        let behind_qname =
            is_usable.then(|| read(&message, HEADER, READ_STEPS)).flatten().map(|walk| walk.offset() as u32);
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        Self { name, bytes, message, behind_qname }
    }

    /// The question that it answers; of one that answers none, some other with its ID.
    pub fn question(&self) -> Vec<u8> {
        let end = self.behind_qname.map(|end| end as usize + 4).filter(|end| *end <= self.bytes.len());
        let asked = end.map_or(b"\x01x\x04test\0\0\x01\0\x01".as_slice(), |end| &self.bytes[12..end]);
        [&self.bytes[..2], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], asked].concat()
    }

    /// What becomes of it where a rule has the question.
    pub fn where_matched(&self) -> Meant {
        let Some(behind_qname) = self.behind_qname else {
            return self.meant(Vec::new(), self.message.header().rcode != 0);
        };
        let header = self.message.header();
        if header.rcode != 0 || header.answers == 0 {
            return self.meant(Vec::new(), true);
        }
        let (found, is_whole) = addresses(&self.message, behind_qname, header.answers);
        let found = found.into_iter().map(|(address, _)| address).collect();
        self.meant(found, is_whole || header.truncated)
    }

    /// The same where none has, but some name that it is an alias of may be in a rule. It goes on in any case.
    pub fn where_aliased(&self) -> Meant {
        let mut found = Vec::new();
        let header = self.message.header();
        if let Some(behind_qname) = self.behind_qname
            && header.rcode == 0
        {
            let mut walk = AnswerWalk::default();
            walk.start(behind_qname, header.answers);
            let mut chain = Chain::default();
            chain.start(self.hash(HEADER));
            for _ in 0..ANSWER_STEPS {
                match walk.step(&self.message) {
                    Step::More => {}
                    Step::Address if chain.name() != 0 && chain.holds(self.hash(walk.owner())) => {
                        found.push(*walk.address());
                    }
                    Step::Alias if chain.holds(self.hash(walk.owner())) => {
                        chain.go_on(self.hash(walk.target()), self.is_allowed(walk.target()));
                    }
                    Step::Address | Step::Alias => {}
                    Step::Done | Step::Stop => break,
                }
            }
        }
        self.meant(found, true)
    }

    /// The same where rules have those names, of which the question may be one.
    pub fn wherever(&self) -> Meant {
        if self.is_allowed(HEADER) { self.where_matched() } else { self.where_aliased() }
    }

    fn meant(&self, learned: Vec<Address>, goes_on: bool) -> Meant {
        let verdict = if goes_on { Verdict::Allow } else { Verdict::Deny };
        Meant { learned: learned.into_iter().collect(), verdict }
    }

    /// A number for the name at an offset, 0 for none.
    fn hash(&self, at: u32) -> u64 {
        let Some(name) = self.wire(at) else { return 0 };
        1 + name.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(257).wrapping_add(u64::from(*byte) + 1)) / 2
    }

    fn is_allowed(&self, at: u32) -> bool {
        let wire = |name: &str| -> Vec<u8> {
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect()
        };
        self.wire(at).is_some_and(|name| ALIASES.iter().any(|alias| name == wire(alias)))
    }

    fn wire(&self, at: u32) -> Option<Vec<u8>> {
        let walk = read(&self.message, at, COMPRESSED_STEPS)?;
        Some(walk.wire()[..walk.len()].to_ascii_lowercase())
    }
}

/// Reads a name as the programs do.
fn read(message: &Message, at: u32, steps: u32) -> Option<NameWalk> {
    let mut walk = NameWalk::default();
    if steps == COMPRESSED_STEPS {
        walk.start_compressed(at)
    } else {
        walk.start(at)
    }
    for _ in 0..steps {
        match walk.read(message.byte(walk.offset() as u32)) {
            NameStep::Done => return Some(walk),
            NameStep::Stop => return None,
            _ => {}
        }
    }
    None
}

/// What the programs do with an answer that comes over UDP from this resolver.
fn over_udp(runner: &mut Runner, recorded: &Recorded, resolver: IpAddr) -> Meant {
    let mut exchange = Exchange::new("x.test", &[]);
    exchange.resolver = resolver;
    runner.ask_bytes(&exchange, &recorded.question());
    let verdict = runner.answer_bytes(&exchange, &recorded.bytes);
    Meant { learned: runner.known(), verdict }
}

fn each(yaml: &str, meant: impl Fn(&Recorded) -> Meant) -> usize {
    let bpffs = Bpffs::new();
    let mut runner = Runner::new(&settings(&bpffs));
    let policy = policy(yaml);
    let mut learned = 0;
    for recorded in corpus() {
        for resolver in RESOLVERS {
            runner.enforce(&policy);
            let happened = over_udp(&mut runner, &recorded, resolver.parse().expect("an address"));
            assert_eq!(happened, meant(&recorded), "{} from {resolver}", recorded.name);
            learned += happened.learned.len();
        }
    }
    learned
}

#[test]
fn the_programs_read_answers_as_user_space_does() {
    let learned = each(EVERYTHING, Recorded::where_matched);
    assert!(learned > 100, "{learned} addresses say little");
}

#[test]
fn and_follow_their_aliases() {
    let yaml = format!("{{egress: [{{to: [{{domainNames: [{}]}}]}}]}}", ALIASES.join(", "));
    let learned = each(&yaml, Recorded::wherever);
    assert!(learned >= 10, "{learned} addresses say little");
}
