//! What the kernel programs and user space share: the layout of every map ([`abi`]) and the algorithms that
//! both sides run. `no_std`, no allocation, no panics on input: the kernel programs are thin shells over
//! these functions, which user space fuzzes and property-tests.

#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod abi;
pub mod age;
pub mod answer;
pub mod atomics;
pub mod automaton;
pub mod chain;
pub mod judge;
pub mod learned;
pub mod link;
pub mod matcher;
pub mod name;
pub mod packet;
pub mod queries;
pub mod refusal;
pub mod shape;
pub mod share;
pub mod stream;

#[cfg(test)]
mod properties;
