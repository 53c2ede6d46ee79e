//! How long ago something was.

/// In ns, of two times since boot. Another CPU may have seen it since `now_ns` was read: that is no time ago, and not longer than
/// anything lasts.
#[inline(always)]
#[must_use]
pub fn age_ns(now_ns: u64, seen_ns: u64) -> u64 {
    now_ns.saturating_sub(seen_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FLOW_IDLE_NS;

    #[test]
    fn what_another_cpu_has_just_seen_is_not_idle() {
        assert!(age_ns(1_000, 1_001) < FLOW_IDLE_NS && age_ns(0, u64::MAX) < FLOW_IDLE_NS);
        assert_eq!((age_ns(1_001, 1_000), age_ns(u64::MAX, 0)), (1, u64::MAX));
    }
}
