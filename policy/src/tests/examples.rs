//! Every object in `examples/` is good on every level, and each in `examples/bad/` gives the errors that its
//! first lines say: `schema:` and `cel:` as an API server checks them, `operator:` as the operator reports
//! them in `Accepted`, on servers that run no CEL and for whatever gets past the others.

use std::fs;
use std::path::{Path, PathBuf};

use super::levels::{Levels, object};
use serde_json::json;

#[test]
fn good_examples_pass_every_level() {
    let levels = Levels::new();
    let files = yaml_files("");
    assert!(files.len() >= 7, "only {files:?}");
    for file in files {
        let object = object(&fs::read_to_string(&file).unwrap());
        assert_eq!(levels.errors(&object), Vec::<String>::new(), "{}", file.display());
        assert_eq!(levels.unknown_fields(&object), Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn bad_examples_give_the_errors_they_name() {
    let levels = Levels::new();
    let files = yaml_files("bad");
    assert!(files.len() >= 30, "only {files:?}");
    let mut wrong = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let named: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| ["schema: ", "cel: ", "operator: "].iter().any(|level| line.starts_with(level)))
            .collect();
        let given = levels.errors(&object(&text));
        println!("{}\n  {}", file.file_name().unwrap().to_string_lossy(), given.join("\n  "));
        if given.is_empty() || named != given {
            println!("  BUT THE FILE NAMES\n  {}", named.join("\n  "));
            wrong += 1;
        }
    }
    assert_eq!(wrong, 0, "files give other errors than they name");
}

#[test]
fn ten_thousand_names_are_refused() {
    let names: Vec<String> = (0..10_000).map(|index| format!("host-{index}.example.com")).collect();
    let egg = json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg", "metadata": {"name": "ten-thousand"},
        "spec": {"podSelector": {}, "egress": [{"to": [{"domainNames": names}]}]}
    });
    let given = Levels::new().errors(&egg);
    println!("{}", given.join("\n"));
    assert_eq!(given.len(), 3);
    assert!(given[0].starts_with("schema: spec.egress[0].to[0].domainNames: "));
    assert_eq!(
        given[1..],
        [
            "operator: spec.egress[0].to[0].domainNames: 10000 names are too many: 1000 is the most, divide them among several entries of to",
            "operator: spec.egress: 10000 names are too many: 8192 is the most, divide them among several Eggs",
        ]
    );
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

/// The comparison below would pass on an empty schema.
#[test]
fn the_levels_do_check() {
    let egg = json!({"kind": "Egg", "spec": {"podSelector": {}, "egress": [{"to": [{"cidr": "10"}]}]}});
    let given = Levels::new().errors(&egg);
    assert_eq!(given.len(), 2, "{given:?}");
    assert_ne!(Levels::new().errors(&json!({"kind": "Egg", "spec": {}})).len(), 0);
}
