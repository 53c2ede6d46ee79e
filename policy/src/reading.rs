//! The rules of Eggs, read when they are first asked for, and once for many flows: to read one regular expression takes longer than
//! to ask it of a thousand names.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
};

use ipnetwork::IpNetwork;
use l7egg_crds::{Destination, EgressRule, PolicySpec};

use crate::{DomainName, Match, NamePattern};

/// What has been read of specs, by where they are: they stay there for as long as this is.
#[derive(Debug, Default)]
pub struct ReadSpecs<'a>(RefCell<HashMap<*const PolicySpec, Rc<[ReadRule<'a>]>>>);

impl<'a> ReadSpecs<'a> {
    pub(crate) fn rules(&self, spec: &'a PolicySpec) -> Rc<[ReadRule<'a>]> {
        let mut read = self.0.borrow_mut();
        Rc::clone(read.entry(spec).or_insert_with(|| spec.egress.iter().map(ReadRule::new).collect()))
    }
}

/// A rule.
#[derive(Debug)]
pub(crate) struct ReadRule<'a> {
    /// As it is written.
    pub written: &'a EgressRule,
    /// The entries of its `to`.
    pub to: Box<[ReadDestination<'a>]>,
}

impl<'a> ReadRule<'a> {
    fn new(written: &'a EgressRule) -> Self {
        ReadRule { written, to: written.to.iter().map(ReadDestination::new).collect() }
    }
}

/// An entry of `to`. What cannot be read matches nothing.
#[derive(Debug)]
pub(crate) struct ReadDestination<'a> {
    written: &'a Destination,
    block: OnceCell<Option<Block>>,
    patterns: OnceCell<Box<[NamePattern]>>,
}

#[derive(Debug)]
struct Block {
    network: IpNetwork,
    except: Box<[IpNetwork]>,
}

impl<'a> ReadDestination<'a> {
    pub(crate) fn new(written: &'a Destination) -> Self {
        ReadDestination { written, block: OnceCell::new(), patterns: OnceCell::new() }
    }

    /// By what an address belongs to it that was learned by these names.
    pub(crate) fn matches(&self, learned: &[DomainName], address: IpAddr) -> Option<Match> {
        if let Some(Block { network, except }) = self.block()
            && network.contains(address)
            && !except.iter().any(|except| except.contains(address))
        {
            return Some(Match::Cidr(*network));
        }
        self.matches_name(learned)
    }

    /// The first of its patterns that matches any of these names.
    pub(crate) fn matches_name(&self, names: &[DomainName]) -> Option<Match> {
        if names.is_empty() {
            return None;
        }
        self.patterns().iter().find_map(|pattern| {
            let name = names.iter().find(|name| pattern.matches(name))?;
            Some(Match::Name(name.clone(), pattern.clone()))
        })
    }

    fn block(&self) -> Option<&Block> {
        let read = || {
            let network = self.written.cidr.as_ref()?.parse().ok()?;
            let except = self.written.except.iter().filter_map(|text| text.parse().ok());
            Some(Block { network, except: except.collect() })
        };
        self.block.get_or_init(read).as_ref()
    }

    fn patterns(&self) -> &[NamePattern] {
        self.patterns.get_or_init(|| {
            let to = self.written;
            let names = to.domain_names.iter().filter_map(|text| NamePattern::parse(text).ok());
            let suffixes = to.domain_suffixes.iter().filter_map(|text| NamePattern::parse_suffix(text).ok());
            let regexes = to.domain_regex.iter().filter_map(|text| NamePattern::parse_regex(text).ok());
            names.chain(suffixes).chain(regexes).collect()
        })
    }
}
