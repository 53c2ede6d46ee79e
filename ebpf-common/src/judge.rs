//! From what the maps say about a destination to a verdict.

use crate::abi::Masks;

/// What becomes of a packet or a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

/// Combines what is said about a destination (its CIDRs, and each name that it was learned by) with the port
/// groups that hold its port. Deny beats Allow; what nobody allows is denied.
#[inline(always)]
pub fn combine(destination: Masks, port_groups: u64) -> Verdict {
    if destination.deny & port_groups != 0 || destination.allow & port_groups == 0 {
        Verdict::Deny
    } else {
        Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_beats_allow_on_the_same_ports_only() {
        assert_eq!(combine(Masks { allow: 1, deny: 2 }, 1), Verdict::Allow);
        assert_eq!(combine(Masks { allow: 1, deny: 2 }, 3), Verdict::Deny);
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 2), Verdict::Deny);
        assert_eq!(combine(Masks::NONE, u64::MAX), Verdict::Deny);
    }
}
