//! The TCP connections of a pod, after its policy has changed: those that it does not allow any more are reset,
//! so that both ends notice; those from before its first Egg are told apart.
//!
//! ```text
//! pod's netns ─► sock_diag::each ─► Fate of each ─► sock_diag::destroy
//!                                           └─────► map INHERITED (from before the first Egg)
//! ```
//!
//! The programs judge every packet by the new policy meanwhile: what is done here opens and closes nothing. It
//! is for the program that waits, and for its peer.

mod fate;
pub mod sock_diag;

pub use fate::{Fate, View, fate, may_be_unread};
