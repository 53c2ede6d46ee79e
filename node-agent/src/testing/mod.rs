//! Plain objects and a datapath without a kernel, for unit tests.

mod datapath;
mod objects;

pub use datapath::FakeDatapath;
pub use l7egg_daemon::testing::warnings;
pub use objects::{
    AssignmentBuilder, assignment, cgroups_of, desired_of, enforced_pod, inventory_of, node_resolvers, told,
};
