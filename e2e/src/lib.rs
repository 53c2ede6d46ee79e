//! l7egg on a real cluster. Needs a kubeconfig, and nothing else of the machine that it runs on.
//!
//! - [`world`] plays everything outside the cluster, and [`probe`] is what client pods run. Both are binaries
//!   of this crate that go into the testkit image.
//! - [`cluster`] is the harness: namespaces, pods, Eggs, programs in pods, and waiting.
//! - [`demo`] is what `cargo xtask demo` prints; the tests are in `tests/`.

pub mod cluster;
pub mod demo;
pub mod probe;
pub mod world;
