//! Globs and partial names as a trie over what they say from the right, so that a thousand of them below one
//! domain have the domain once.

use std::collections::BTreeMap;

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, Repetition};

use crate::pattern::{Glob, NameSuffix};

/// One step to the left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    /// This byte.
    Byte(u8),
    /// Any number of bytes of a label, or none.
    InLabel,
    /// A whole label.
    Label,
    /// One or more whole labels; only at the left end.
    Labels,
}

#[derive(Default)]
pub(super) struct Trie {
    children: BTreeMap<Token, Trie>,
    /// A name may begin here.
    whole: bool,
    /// Anything may stand in front.
    partial: bool,
}

impl Trie {
    pub(super) fn add_suffix(&mut self, suffix: &NameSuffix) {
        let text = suffix.name.to_string();
        self.add(text.bytes().rev().map(Token::Byte)).partial = true;
    }

    pub(super) fn add_glob(&mut self, glob: &Glob) {
        let mut tokens = Vec::new();
        for (index, label) in glob.labels.iter().rev().enumerate() {
            if index > 0 {
                tokens.push(Token::Byte(b'.'));
            }
            match label.as_str() {
                "*" => tokens.push(Token::Label),
                label => tokens.extend(label.bytes().rev().map(|byte| match byte {
                    b'*' => Token::InLabel,
                    byte => Token::Byte(byte),
                })),
            }
        }
        if glob.any_labels {
            tokens.extend([Token::Byte(b'.'), Token::Labels]);
        }
        self.add(tokens.into_iter()).whole = true;
    }

    fn add(&mut self, tokens: impl Iterator<Item = Token>) -> &mut Trie {
        tokens.fold(self, |node, token| node.children.entry(token).or_default())
    }

    /// What stands from here to the left, written from the left; nothing if nothing was added.
    pub(super) fn into_hir(self) -> Option<Hir> {
        if self.partial {
            // Whatever longer patterns say, this one says already.
            return Some(star(any_byte(), 0));
        }
        let mut all: Vec<Hir> = self.whole.then(Hir::empty).into_iter().collect();
        for (token, mut node) in self.children {
            // A chain without branches needs no nesting.
            let mut chain = vec![token];
            while node.children.len() == 1 && !node.whole && !node.partial {
                let (token, next) = node.children.pop_first()?;
                chain.push(token);
                node = next;
            }
            let mut parts: Vec<Hir> = node.into_hir().into_iter().collect();
            parts.extend(chain.into_iter().rev().map(token_hir));
            all.push(Hir::concat(parts));
        }
        (!all.is_empty()).then(|| Hir::alternation(all))
    }
}

fn token_hir(token: Token) -> Hir {
    match token {
        Token::Byte(byte) => Hir::literal([byte]),
        Token::InLabel => star(label_byte(), 0),
        Token::Label => star(label_byte(), 1),
        // Names have no empty labels: what stands in front of a dot is labels.
        Token::Labels => star(any_byte(), 1),
    }
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
