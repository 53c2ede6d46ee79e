//! The l7egg operator: Eggs × pods × namespaces → EggAssignments, and the agents' reports → Egg status.
//!
//! The data's way: [`watch`] brings what the API server has, [`read`] makes plain structs of it, Eggs by way of
//! [`judging`], [`index`] knows what follows from it, [`queue`] keeps what may have to be written, [`pace`] and [`brake`] say when, and [`write`](mod@write) sends it;
//! [`status`] and [`announce`] say how far an Egg has come, and `publish` tells it. [`controller`] is the loop that turns all this.

pub mod announce;
pub mod brake;
pub mod controller;
pub mod health;
pub mod http;
pub mod index;
pub mod judging;
pub mod lease;
pub mod listing;
pub mod metrics;
pub mod naming;
pub mod pace;
mod publish;
pub mod queue;
pub mod read;
mod run;
pub mod services;
mod settings;
pub mod status;
mod taint;
pub mod watch;
pub mod write;

pub use run::{RunError, run};
pub use settings::Settings;
pub use taint::TAINT;
