//! Tests that need more than one module.

mod audit;
mod compile;
mod examples;
mod generate;
mod levels;
mod meaning;
mod names;
mod oracle;
mod patterns;
