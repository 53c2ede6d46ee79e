//! Patterns that say the same as a trie over their parts from the right, so that a thousand of them below one
//! domain have the domain, and what stands in front of it in all of them, once.

use std::collections::BTreeMap;

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};

use super::{AutomatonError, MAX_BRANCHES};
use crate::pattern::{Glob, NameRegex, NameSuffix};

#[derive(Default)]
pub(super) struct Trie {
    /// What may come next to the left, by how it is written.
    children: BTreeMap<String, (Hir, Trie)>,
    /// A name may begin here.
    whole: bool,
    /// Anything may stand in front.
    partial: bool,
}

impl Trie {
    pub(super) fn add_suffix(&mut self, suffix: &NameSuffix) {
        let mut parts = Vec::new();
        push_bytes(&mut parts, suffix.name.to_string().as_bytes());
        self.add(parts).partial = true;
    }

    pub(super) fn add_glob(&mut self, glob: &Glob) {
        let mut parts = Vec::new();
        if glob.any_labels {
            // Names have no empty labels: what stands in front of a dot is labels.
            parts.extend([star(any_byte(), 1), Hir::literal(*b".")]);
        }
        for (index, label) in glob.labels.iter().enumerate() {
            if index > 0 {
                parts.push(Hir::literal(*b"."));
            }
            match label.as_str() {
                "*" => parts.push(star(label_byte(), 1)),
                label => parts.extend(label.bytes().map(|byte| match byte {
                    b'*' => star(label_byte(), 0),
                    byte => Hir::literal([byte]),
                })),
            }
        }
        self.add(parts).whole = true;
    }

    pub(super) fn add_regex(&mut self, regex: &NameRegex) {
        let mut parts = Vec::new();
        push_parts(&mut parts, regex.hir());
        self.add(parts).whole = true;
    }

    /// The node that these parts, written from the left, lead to from the right.
    fn add(&mut self, parts: Vec<Hir>) -> &mut Trie {
        parts.into_iter().rev().fold(self, |node, part| {
            &mut node.children.entry(part.to_string()).or_insert_with(|| (part, Trie::default())).1
        })
    }

    /// What stands from here to the left, written from the left; nothing if nothing was added.
    ///
    /// # Errors
    /// It branches, and branches again, so often that who follows it runs out of stack.
    pub(super) fn into_hir(self) -> Result<Option<Hir>, AutomatonError> {
        self.below(0)
    }

    fn below(self, depth: usize) -> Result<Option<Hir>, AutomatonError> {
        if depth > MAX_BRANCHES {
            return Err(AutomatonError::Branches);
        }
        if self.partial {
            // Whatever longer patterns say, this one says already.
            return Ok(Some(star(any_byte(), 0)));
        }
        let mut all: Vec<Hir> = self.whole.then(Hir::empty).into_iter().collect();
        for (part, mut node) in self.children.into_values() {
            // A chain without branches needs no nesting.
            let mut chain = vec![part];
            while node.children.len() == 1 && !node.whole && !node.partial {
                let Some((_, (part, next))) = node.children.pop_first() else { break };
                chain.push(part);
                node = next;
            }
            let mut parts: Vec<Hir> = node.below(depth + 1)?.into_iter().collect();
            parts.extend(chain.into_iter().rev());
            all.push(Hir::concat(parts));
        }
        Ok((!all.is_empty()).then(|| Hir::alternation(all)))
    }
}

/// What a regular expression is made of, one after another.
fn push_parts(parts: &mut Vec<Hir>, hir: &Hir) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => push_bytes(parts, &literal.0),
        HirKind::Concat(all) => all.iter().for_each(|part| push_parts(parts, part)),
        HirKind::Capture(capture) => push_parts(parts, &capture.sub),
        HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => {
            parts.push(hir.clone());
        }
    }
}

fn push_bytes(parts: &mut Vec<Hir>, bytes: &[u8]) {
    parts.extend(bytes.iter().map(|&byte| Hir::literal([byte])));
}

fn star(sub: Hir, min: u32) -> Hir {
    Hir::repetition(Repetition { min, max: None, greedy: true, sub: Box::new(sub) })
}

fn label_byte() -> Hir {
    class(&[(b'-', b'-'), (b'0', b'9'), (b'_', b'_'), (b'a', b'z')])
}

fn any_byte() -> Hir {
    class(&[(b'-', b'.'), (b'0', b'9'), (b'_', b'_'), (b'a', b'z')])
}

fn class(ranges: &[(u8, u8)]) -> Hir {
    let ranges = ranges.iter().map(|&(first, last)| ClassBytesRange::new(first, last));
    Hir::class(Class::Bytes(ClassBytes::new(ranges)))
}

#[cfg(test)]
mod tests {
    use l7egg_ebpf_common::abi::Masks;

    use super::super::determinize::determinize;
    use super::*;

    /// Stack of the threads that compile, in bytes: std's and tokio's.
    const STACK: usize = 2 << 20;

    /// Expressions of which each is the end of the next, so that each adds a branch.
    fn ends(part: &str, count: usize) -> Result<Option<Hir>, AutomatonError> {
        let mut trie = Trie::default();
        for count in 0..count {
            trie.add_regex(&NameRegex::parse(&format!("{}b", part.repeat(count))).unwrap());
        }
        trie.into_hir()
    }

    #[test]
    fn no_expressions_need_a_deep_stack() {
        let nested = format!("{}a{}", "(?:".repeat(100), "*)?".repeat(100));
        for part in ["a", "a?", "[ab]", "(?:a*b)?", &nested] {
            let most = (1000 / part.len()).min(MAX_BRANCHES);
            let part = part.to_owned();
            let compiled = std::thread::Builder::new().stack_size(STACK).spawn(move || {
                if part.len() < 5 {
                    assert_eq!(ends(&part, 1000 / part.len()), Err(AutomatonError::Branches), "{part}");
                }
                let hir = ends(&part, most).unwrap().unwrap();
                // Whether it fits is another matter.
                let _ = determinize(&[(Masks::NONE, hir)]);
            });
            compiled.unwrap().join().unwrap();
        }
    }
}
