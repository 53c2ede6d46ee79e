//! Cases in which programs and oracle once differed, and their replay at the beginning of every run.

use std::fs;
use std::path::{Path, PathBuf};

use super::case::Case;

/// Where they are committed, one file a case.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/oracle/regressions");

/// Those that are committed, with their paths.
pub fn committed() -> Vec<(PathBuf, Case)> {
    let entries = fs::read_dir(COMMITTED).expect("the cases that are committed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a case");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes a case down, and says where, and what to do with it.
pub fn keep(case: &Case, seed: u64) -> String {
    let text = serde_json::to_string_pretty(case).expect("a case in JSON");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{seed}.json"));
    match fs::write(&path, text + "\n") {
        Ok(()) => format!(
            "kept in {}: commit it under a name that says what was wrong to {COMMITTED}, where every run begins",
            path.display()
        ),
        Err(error) => format!("{} cannot be written: {error}", path.display()),
    }
}
