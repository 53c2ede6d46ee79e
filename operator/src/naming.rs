//! Names of EggAssignments.

use l7egg_crds::EggKind;
use sha2::{Digest, Sha256};

use crate::index::{EggKey, ObjectKey};

/// Longest name of an object (a DNS subdomain, RFC 1123, as Kubernetes limits it).
const MAX_NAME: usize = 253;
/// Hexadecimal digits of a hash in a name: 64 bits.
const HASH_DIGITS: usize = 16;

/// The EggAssignment of an Egg on a node: `<egg>.<node>`, for a ClusterEgg `cluster.<name>.<node>` in the
/// system namespace. A name that would be too long, or that another Egg and node could have as well because
/// the Egg's own name has dots, ends in a hash of all four.
pub fn assignment_key(egg: &EggKey, node: &str) -> ObjectKey {
    let plain = match egg.kind {
        EggKind::Egg => format!("{}.{node}", egg.name),
        EggKind::ClusterEgg => format!("cluster.{}.{node}", egg.name),
    };
    let ambiguous = egg.name.contains('.') || (egg.kind == EggKind::Egg && egg.name == "cluster");
    let name = if ambiguous || plain.len() > MAX_NAME { hashed(&plain, egg, node) } else { plain };
    ObjectKey::new(egg.assignment_namespace(), name)
}

fn hashed(plain: &str, egg: &EggKey, node: &str) -> String {
    let mut hash = Sha256::new();
    for part in [&format!("{:?}", egg.kind), egg.assignment_namespace(), &egg.name, node] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits: String =
        hash.finalize().iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    let kept = plain.len().min(MAX_NAME - 1 - HASH_DIGITS);
    format!("{}-{digits}", plain[..kept].trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names() {
        assert_eq!(
            assignment_key(&EggKey::egg("shop", "checkout"), "node1"),
            ObjectKey::new("shop", "checkout.node1")
        );
        assert_eq!(
            assignment_key(&EggKey::cluster("base"), "ip-10-0-0-1.ec2.internal"),
            ObjectKey::new("l7egg-system", "cluster.base.ip-10-0-0-1.ec2.internal")
        );
    }

    #[test]
    fn no_two_eggs_share_a_name() {
        let pairs = [
            (EggKey::egg("l7egg-system", "a.b"), "c"),
            (EggKey::egg("l7egg-system", "a"), "b.c"),
            (EggKey::egg("l7egg-system", "cluster.a"), "n"),
            (EggKey::egg("l7egg-system", "cluster"), "a.n"),
            (EggKey::cluster("a"), "n"),
            (EggKey::cluster("a.n"), "n"),
            (EggKey::cluster("a"), "n.n"),
        ];
        let mut names: Vec<_> = pairs.iter().map(|(egg, node)| assignment_key(egg, node)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), pairs.len());
    }

    #[test]
    fn long_names_are_cut_and_stay_valid_and_different() {
        let egg = EggKey::egg("shop", "e".repeat(253));
        let (a, b) = (assignment_key(&egg, "node-a"), assignment_key(&egg, "node-b"));
        assert_ne!(a, b);
        for key in [a, b] {
            assert_eq!(key.name.len(), MAX_NAME);
        }
        // The cut falls on a dot.
        let egg = EggKey::egg("shop", "e".repeat(235));
        let name = assignment_key(&egg, &"n".repeat(60)).name;
        assert!(!name.contains(".-") && !name.contains("--"), "{name}");
        assert!(name.len() <= MAX_NAME);
    }

    #[test]
    fn names_never_change() {
        // Names outlive the operator: another hash would delete and rewrite every such assignment.
        assert_eq!(assignment_key(&EggKey::egg("shop", "a.b"), "c").name, "a.b.c-8769ef00d8717068");
    }
}
