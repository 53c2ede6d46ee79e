//! What a policy says, by its id.

use super::Address;

/// Port groups that a destination is allowed and denied on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Masks {
    /// Groups of Allow rules.
    pub allow: u64,
    /// Groups of Deny rules.
    pub deny: u64,
}

impl Masks {
    /// Nothing allowed, nothing denied.
    pub const NONE: Self = Self { allow: 0, deny: 0 };

    /// The groups of both.
    #[inline(always)]
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { allow: self.allow | other.allow, deny: self.deny | other.deny }
    }

    /// Whether no rule is in it.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.allow | self.deny == 0
    }
}

/// What a policy says about one name, in the table that is asked for every suffix of a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameMasks {
    /// Rules with the name itself.
    pub exact: Masks,
    /// Rules with `*.` before the name: one label more.
    pub one_label: Masks,
    /// Rules with `**.` before the name: one or more labels more.
    pub any_labels: Masks,
    /// 1 if the name is one of the pod's search domains, and names can be refused; else 0.
    pub search: u64,
}

/// Map `CONFIG`, one entry: node-wide settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Secret multipliers of the name hash, see [`crate::name::NameHash`].
    pub hash_key: [u32; 2],
    /// An answer is believed at least this long, in ns, whatever its TTL.
    pub min_ttl_ns: u64,
    /// An answer is believed at most this long, in ns, whatever its TTL.
    pub max_ttl_ns: u64,
    /// And so long after that, in ns.
    pub ttl_grace_ns: u64,
}

/// Map `SETTINGS`, by policy id: what its Eggs say about DNS itself. A time that is [`UNSET`] is that of
/// [`Config`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// As in [`Config`].
    pub min_ttl_ns: u64,
    /// As in [`Config`].
    pub max_ttl_ns: u64,
    /// As in [`Config`].
    pub ttl_grace_ns: u64,
    /// The response code (RFC 1035 §4.1.1) for queries for names that no Allow rule matches, which do not leave; or 0.
    pub refusal: u32,
    /// Zero.
    pub reserved: u32,
}

/// With this bit the id of a policy that refuses names is, in `PATTERNS` and `MATCHERS`, that of what it says about names before
/// search domains: those that may be asked with one behind them. Ids are below it.
pub const SEARCHED: u32 = 1 << SEARCHED_BIT;
/// Its number.
pub const SEARCHED_BIT: u32 = 31;

/// A time of [`PolicySettings`] that no Egg sets.
pub const UNSET: u64 = u64::MAX;

impl PolicySettings {
    /// What a policy that says nothing has.
    pub const NONE: Self =
        Self { min_ttl_ns: UNSET, max_ttl_ns: UNSET, ttl_grace_ns: UNSET, refusal: 0, reserved: 0 };
}

/// Key of `PATTERNS`: a name of the policy, by its hash. The value is [`NameMasks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatternKey {
    /// Hash of the name in wire form.
    pub name: u64,
    /// Policy id.
    pub policy: u32,
    /// Zero.
    pub reserved: u32,
}

/// Data of the longest-prefix trie `CIDRS`; its prefix length is 32 + that of the network. The value is
/// [`Masks`], complete: no shorter prefix has to be asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CidrData {
    /// Policy id, big endian so that all of it is in the prefix.
    pub policy: [u8; 4],
    /// Network address.
    pub address: Address,
}

/// Data of the longest-prefix trie `PORTS`; its prefix length is 32, 40 or 41..=56. The value is the `u64` of
/// port groups that hold the port, complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortData {
    /// Policy id, big endian.
    pub policy: [u8; 4],
    /// IP protocol.
    pub protocol: u8,
    /// Port, big endian.
    pub port: [u8; 2],
    /// Zero, and beyond every prefix.
    pub reserved: u8,
}

/// Key of `RESOLVERS`: a DNS server that pods of the policy may ask and whose answers are believed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResolverKey {
    /// Policy id.
    pub policy: u32,
    /// Address of the server; its port is [`super::DNS_PORT`].
    pub address: Address,
}
