//! From a question that no rule matches to a name that one does, by aliases: what search lists and CoreDNS's
//! autopath make of a name.

/// How far the aliases of an answer have come from the question, and the first of them that a rule matches. The
/// addresses at the end are learned by that name, as they would be had the pod asked for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Hash of the alias that a rule matches; 0 before there is one.
    name: u64,
    /// Hash of the name whose records come next.
    end: u64,
}

impl Chain {
    /// Begins at the question.
    #[inline(always)]
    pub fn start(&mut self, question: u64) {
        self.name = 0;
        self.end = question;
    }

    /// The name that addresses are learned by, 0 for none.
    #[inline(always)]
    pub fn name(&self) -> u64 {
        self.name
    }

    /// Whether a record of this owner is the next one.
    #[inline(always)]
    pub fn holds(&self, owner: u64) -> bool {
        self.end == owner
    }

    /// The name at the end so far is an alias of another; `matched` says that a rule matches that.
    #[inline(always)]
    pub fn go_on(&mut self, target: u64, matched: bool) {
        self.end = target;
        if self.name == 0 && matched {
            self.name = target;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_is_the_name_and_the_last_target_the_end() {
        let mut chain = Chain::default();
        chain.start(1);
        assert_eq!((chain.name(), chain.holds(1), chain.holds(2)), (0, true, false));
        chain.go_on(2, false);
        assert_eq!((chain.name(), chain.holds(1), chain.holds(2)), (0, false, true));
        chain.go_on(3, true);
        chain.go_on(4, true);
        chain.go_on(5, false);
        assert_eq!((chain.name(), chain.holds(3), chain.holds(5)), (3, false, true));
        chain.start(6);
        assert_eq!((chain.name(), chain.holds(5), chain.holds(6)), (0, false, true));
    }
}
