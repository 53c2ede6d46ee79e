//! From what the maps say about a destination to a verdict.

use crate::abi::Masks;

/// What becomes of a packet or a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It passes, and would not if all Eggs that select the pod were enforced: that is recorded.
    Audit,
    /// It does not pass.
    Deny,
}

/// Which port groups of a policy deny, and which are only looked at: the first ones are of Eggs in mode
/// Enforce, the others of Eggs in mode Audit. It is in [`crate::abi::SubjectState::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcement(u32);

/// The flag that no Egg is enforced.
const NOTHING: u32 = 1 << 7;
const GROUPS: u32 = NOTHING - 1;
/// All flags that belong to an [`Enforcement`]; the others are zero.
const BITS: u32 = NOTHING | GROUPS;

impl Enforcement {
    /// Of a policy whose Eggs are all enforced.
    pub const ALL: Self = Self(u64::BITS);
    /// Of a policy none of whose Eggs is: it denies nothing.
    pub const NOTHING: Self = Self(NOTHING);

    /// Of a policy whose first `groups` port groups are of Eggs that are enforced.
    #[must_use]
    pub fn of_first(groups: u32) -> Self {
        Self(if groups > u64::BITS { u64::BITS } else { groups })
    }

    /// From a subject's flags.
    #[inline(always)]
    #[must_use]
    pub fn from_flags(flags: u32) -> Self {
        Self(flags & BITS)
    }

    /// As a subject's flags.
    #[must_use]
    pub fn flags(self) -> u32 {
        self.0
    }

    /// Whether the policy denies nothing at all.
    #[inline(always)]
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self.0 & NOTHING != 0
    }

    /// The port groups that deny.
    #[inline(always)]
    fn groups(self) -> u64 {
        let count = self.0 & GROUPS;
        if count >= u64::BITS { u64::MAX } else { (1 << count) - 1 }
    }
}

/// Combines what is said about a destination (its CIDRs, and each name that it was learned by) with the port
/// groups that hold its port. Deny beats Allow; what nobody allows is denied. Only Eggs that are enforced deny
/// or allow; if nothing of theirs stands against it, all Eggs together say whether it is recorded.
#[inline(always)]
pub fn combine(destination: Masks, port_groups: u64, enforcement: Enforcement) -> Verdict {
    if !enforcement.is_nothing() && is_denied(destination, port_groups & enforcement.groups()) {
        Verdict::Deny
    } else if is_denied(destination, port_groups) {
        Verdict::Audit
    } else {
        Verdict::Allow
    }
}

#[inline(always)]
fn is_denied(destination: Masks, groups: u64) -> bool {
    destination.deny & groups != 0 || destination.allow & groups == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_beats_allow_on_the_same_ports_only() {
        let combine = |masks, groups| combine(masks, groups, Enforcement::ALL);
        assert_eq!(combine(Masks { allow: 1, deny: 2 }, 1), Verdict::Allow);
        assert_eq!(combine(Masks { allow: 1, deny: 2 }, 3), Verdict::Deny);
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 2), Verdict::Deny);
        assert_eq!(combine(Masks::NONE, u64::MAX), Verdict::Deny);
        assert_eq!(combine(Masks { allow: 1 << 63, deny: 0 }, u64::MAX), Verdict::Allow);
    }

    #[test]
    fn audit_neither_denies_nor_opens() {
        // Group 0 is enforced, group 1 is not.
        let combine = |masks, groups| combine(masks, groups, Enforcement::of_first(1));
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 3), Verdict::Allow);
        assert_eq!(combine(Masks { allow: 1, deny: 2 }, 3), Verdict::Audit);
        assert_eq!(combine(Masks { allow: 2, deny: 0 }, 3), Verdict::Deny, "an Audit Egg opens nothing");
        assert_eq!(combine(Masks { allow: 3, deny: 1 }, 3), Verdict::Deny);
    }

    #[test]
    fn where_nothing_is_enforced_nothing_is_denied() {
        let combine = |masks, groups| combine(masks, groups, Enforcement::NOTHING);
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 1), Verdict::Allow);
        assert_eq!(combine(Masks { allow: 1, deny: 1 }, 1), Verdict::Audit);
        assert_eq!(combine(Masks::NONE, 0), Verdict::Audit);
    }

    #[test]
    fn a_policy_without_rules_denies_everything() {
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 1, Enforcement::of_first(0)), Verdict::Deny);
        assert_eq!(combine(Masks { allow: 1, deny: 0 }, 1, Enforcement::from_flags(0)), Verdict::Deny);
    }

    #[test]
    fn flags_are_kept() {
        for enforcement in [Enforcement::ALL, Enforcement::NOTHING, Enforcement::of_first(7)] {
            assert_eq!(Enforcement::from_flags(enforcement.flags() | 1 << 31), enforcement);
        }
        assert_eq!(Enforcement::of_first(64), Enforcement::ALL);
    }
}
