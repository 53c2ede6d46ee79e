//! The tiers that need a cluster: the operator on its API server, and the whole product.

use std::path::Path;

use anyhow::Result;

use super::binaries;
use super::report::{Report, Row};
use super::runner::{self, Show};
use crate::kubernetes::Kubernetes;

/// Runs the operator's tests; only the API server takes part.
pub fn operator(kubernetes: &Kubernetes, filter: &[String]) -> Row {
    run("operator", "operator", "api", kubernetes, 900, filter, |_| true)
        .unwrap_or_else(|error| Row::unable("operator", &error))
}

/// Runs the chaos tests; of the cluster only the API server takes part.
pub fn chaos(kubernetes: &Kubernetes) -> Row {
    run("chaos", "node-agent", "chaos", kubernetes, 600, &[], |_| true)
        .unwrap_or_else(|error| Row::unable("chaos", &error))
}

/// Installs the product and runs the e2e tests, one at a time: some of them measure. The last one removes it.
pub fn e2e(report: &mut Report, kubernetes: &Kubernetes, filter: &[String]) {
    let one_at_a_time = ["--test-threads=1".to_owned()];
    let filter: Vec<_> = one_at_a_time.iter().chain(filter).cloned().collect();
    let keeps = |program: &Path| !removes(program);
    let installed = kubernetes.install();
    let is_installed = installed.is_ok();
    let row = installed.and_then(|()| run("e2e", "e2e", "*", kubernetes, 1800, &filter, keeps));
    let row = row.unwrap_or_else(|error| Row::unable("e2e", &error));
    if row.failures() > 0 {
        kubernetes.explain();
    }
    report.add(row);
    // Who wants to see some of them wants to keep the product.
    if is_installed && filter.iter().all(|it| it.starts_with("--") || REMOVES.starts_with(it.as_str())) {
        let row = run("e2e removal", "e2e", "*", kubernetes, 600, &filter, removes);
        let row = row.unwrap_or_else(|error| Row::unable("e2e removal", &error));
        if row.failures() > 0 {
            kubernetes.explain();
        }
        report.add(row);
    }
}

fn run(
    tier: &str,
    folder: &str,
    tests: &str,
    kubernetes: &Kubernetes,
    limit: u64,
    filter: &[String],
    is_wanted: impl Fn(&Path) -> bool,
) -> Result<Row> {
    let mut binaries = binaries::build(folder, tests)?;
    binaries.retain(|binary| is_wanted(&binary.program));
    let tests = binaries.into_iter().map(|binary| {
        let mut test = kubernetes.command([binary.program.as_os_str(), "--show-output".as_ref()]);
        binary.prepare(&mut test);
        test.args(filter);
        test
    });
    Ok(runner::run(tier, tests.collect(), limit, Show::Everything))
}

/// The test that removes the product, in `e2e/tests/uninstall.rs`.
const REMOVES: &str = "what_the_documentation_says_removes_all_of_it";

/// Whether nothing can be tested after it: it removes the product.
fn removes(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("uninstall-"))
}
