//! Files that come, change and go.

use super::*;

const WEB: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: web}
spec:
  podSelector: {matchLabels: {l7egg.dev/unit: web.service}}
  egress: [{to: [{cidr: 192.0.2.0/24}]}]
";

/// Looks twice, as long apart as it takes.
fn look_twice(files: &mut Files) -> Look {
    let now = Instant::now();
    let first = files.look(now);
    let second = files.look(now + SETTLED);
    Look {
        changed: first.changed || second.changed,
        problems: [first.problems, second.problems].concat(),
        ignored: [first.ignored, second.ignored].concat(),
    }
}

fn names(files: &Files) -> Vec<String> {
    files.accepted().map(|egg| egg.key.to_string()).collect()
}

#[test]
fn a_directory_is_followed_and_what_is_wrong_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    fs::write(&file, WEB).unwrap();
    fs::write(directory.path().join("notes.txt"), "no Egg").unwrap();
    let mut files = Files::new(vec![directory.path().into()]);
    assert_eq!(look_twice(&mut files), Look { changed: true, ..Look::default() });
    assert_eq!(look_twice(&mut files), Look::default());
    assert_eq!(names(&files), ["Egg system/web"]);

    for wrong in ["{", "apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {}\n"] {
        fs::write(&file, wrong).unwrap();
        let look = look_twice(&mut files);
        assert!(
            !look.changed && look.problems.len() == 1 && look.problems[0].contains("web.yaml"),
            "{look:?}"
        );
        assert_eq!(names(&files), ["Egg system/web"]);
        assert_eq!(look_twice(&mut files), Look::default(), "told once");
    }
    // Read, and not accepted.
    fs::write(&file, WEB.replace("192.0.2.0/24", "192.0.2.0/99")).unwrap();
    let look = look_twice(&mut files);
    assert!(
        look.problems[0].contains("Egg system/web") && look.problems[0].contains("192.0.2.0/99"),
        "{look:?}"
    );
    assert!(files.accepted().next().unwrap().spec.is_ok());

    fs::remove_file(&file).unwrap();
    assert!(look_twice(&mut files).changed);
    assert!(names(&files).is_empty());
}

#[test]
fn what_is_being_written_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    fs::write(&file, WEB).unwrap();
    let mut files = Files::new(vec![directory.path().into()]);
    let start = Instant::now();
    assert!(files.look(start).changed);
    // Cut off, and away, for a moment.
    fs::write(&file, "").unwrap();
    assert_eq!(files.look(start + SETTLED), Look::default());
    fs::remove_file(&file).unwrap();
    assert_eq!(files.look(start + SETTLED * 2), Look::default());
    fs::write(&file, WEB).unwrap();
    assert_eq!(files.look(start + SETTLED * 3), Look::default());
    fs::write(directory.path().join(".web.yaml.swp.yaml"), "{").unwrap();
    assert_eq!(look_twice(&mut files), Look::default());
    assert_eq!(names(&files), ["Egg system/web"]);
}

#[test]
fn it_is_whole_when_all_was_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    for wrong in ["{".to_owned(), WEB.replace("192.0.2.0/24", "192.0.2.0/99")] {
        fs::write(&file, wrong).unwrap();
        let mut files = Files::new(vec![directory.path().into()]);
        look_twice(&mut files);
        assert!(!files.is_whole());
        fs::write(&file, WEB).unwrap();
        let now = Instant::now();
        files.look(now);
        assert!(!files.is_whole(), "the new text does not count yet");
        files.look(now + SETTLED);
        assert!(files.is_whole());
        fs::write(&file, "{").unwrap();
        look_twice(&mut files);
        assert!(files.is_whole(), "what it said before is known");
    }
    fs::write(&file, WEB).unwrap();
    let mut files = Files::new(vec![directory.path().into()]);
    files.look(Instant::now());
    assert!(!files.is_whole(), "it may be in the making");
    files.look(Instant::now());
    assert!(files.is_whole());
    let mut missing = Files::new(vec![directory.path().join("none")]);
    look_twice(&mut missing);
    assert!(!missing.is_whole());
}

#[test]
fn it_is_not_whole_while_a_file_is_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    // Cut short in a way that can be read.
    for short in ["", "# Eggs\n"] {
        fs::write(&file, short).unwrap();
        let mut files = Files::new(vec![directory.path().into()]);
        let start = Instant::now();
        files.look(start);
        fs::write(&file, WEB).unwrap();
        files.look(start + SETTLED);
        assert!(!files.is_whole(), "the rest of it does not count yet");
        fs::remove_file(&file).unwrap();
        files.look(start + SETTLED * 2);
        assert!(!files.is_whole(), "it is away for a moment");
        fs::write(&file, WEB).unwrap();
        files.look(start + SETTLED * 3);
        files.look(start + SETTLED * 4);
        assert!(files.is_whole());
        assert_eq!(names(&files), ["Egg system/web"]);
    }
}

#[test]
fn the_examples_are_accepted() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/host");
    let mut files = Files::new(vec![examples]);
    assert_eq!(look_twice(&mut files), Look { changed: true, ..Look::default() });
    assert_eq!(names(&files), ["Egg system/web", "ClusterEgg host"]);
}

#[test]
fn what_is_misspelled_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    let wide = "egress: [{to: [{cidr: 192.0.2.0/24}], ports: [{port: 443}]}, {action: Deny, to: [{cidr: 192.0.2.7/32}]}]\n  mode: Enforce";
    let good = WEB.replace("egress: [{to: [{cidr: 192.0.2.0/24}]}]", wide);
    for (right, wrong, told) in [
        ("ports:", "prots:", "Egg system/web: spec.egress[0].prots: there is no such field: is ports meant?"),
        (
            "action:",
            "acton:",
            "Egg system/web: spec.egress[1].acton: there is no such field: is action meant?",
        ),
        ("mode: Enforce", "mod: Audit", "Egg system/web: spec.mod: there is no such field: is mode meant?"),
        (
            "matchLabels",
            "matchLables",
            "Egg system/web: spec.podSelector.matchLables: there is no such field: is matchLabels meant?",
        ),
        (
            "v1alpha1",
            "v1beta9",
            "document 1: apiVersion: \"l7egg.dev/v1beta9\" is not known: write l7egg.dev/v1alpha1",
        ),
        (
            "l7egg.dev/v1alpha1",
            "l7eg.dev/v1alpha1",
            "document 1: apiVersion: \"l7eg.dev/v1alpha1\" is not known",
        ),
        ("apiVersion", "apiVerson", "document 1: apiVersion and kind: write l7egg.dev/v1alpha1"),
        ("kind: Egg", "kind: Eg", "document 1: kind: \"Eg\" is none of l7egg.dev"),
        (
            "name: web",
            "name: web, namespce: user",
            "document 1: metadata.namespce: there is no such field: is namespace meant?",
        ),
        ("spec:", "spc:", "document 1: spc: there is no such field: is spec meant?"),
        ("mode: Enforce", "mode: Enforce\n  mode: Audit", "mode"),
        ("mode: Enforce", "containers: [web]", "Egg system/web: spec.containers: is for pods"),
        ("mode: Enforce", "shaping: {egress: {rate: 20M}}", "Egg system/web: spec.shaping: is for pods"),
    ] {
        fs::write(&file, &good).unwrap();
        let mut files = Files::new(vec![directory.path().into()]);
        assert_eq!(look_twice(&mut files), Look { changed: true, ..Look::default() });
        let before: Vec<Egg> = files.accepted().cloned().collect();
        assert!(good.contains(right));
        fs::write(&file, good.replacen(right, wrong, 1)).unwrap();
        let look = look_twice(&mut files);
        let [problem] = look.problems.as_slice() else { panic!("{wrong}: {look:?}") };
        assert!(problem.contains("web.yaml: ") && problem.contains(told), "{wrong}: {problem}");
        assert!(files.accepted().eq(&before), "{wrong}: what it said before stays");

        let mut files = Files::new(vec![directory.path().into()]);
        look_twice(&mut files);
        assert!(files.accepted().next().is_none() && !files.is_whole(), "{wrong}");
    }
}

#[test]
fn all_examples_have_fields_that_there_are() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = Files::new(vec![examples]);
    let look = look_twice(&mut files);
    // What a host has not.
    let (pods_only, others): (Vec<_>, Vec<_>) =
        look.problems.iter().partition(|problem| problem.contains(": is for pods: "));
    assert_eq!(others, [""; 0]);
    assert!(!pods_only.is_empty() && files.accepted().count() > 10);
}

#[test]
fn what_is_not_there_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::new(vec![directory.path().join("eggs")]);
    assert!(look_twice(&mut files).problems[0].contains("eggs: No such file"));
    assert_eq!(look_twice(&mut files), Look::default());
    fs::write(directory.path().join("eggs"), WEB).unwrap();
    assert!(look_twice(&mut files).changed);
    fs::remove_file(directory.path().join("eggs")).unwrap();
    let look = look_twice(&mut files);
    assert!(!look.changed && look.problems.len() == 1, "{look:?}");
    assert_eq!(names(&files).len(), 1);
}

#[test]
fn other_objects_are_left_aside_and_the_same_egg_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
    fs::write(directory.path().join("a.yaml"), format!("{other}---\n{WEB}---\n")).unwrap();
    fs::write(directory.path().join("b.yml"), WEB).unwrap();
    let mut files = Files::new(vec![directory.path().into()]);
    let look = look_twice(&mut files);
    assert!(look.ignored[0].contains("document 1: a Deployment"), "{look:?}");
    assert!(look.problems[0].contains("b.yml: Egg system/web is in another file"), "{look:?}");
    assert_eq!(names(&files).len(), 1);
}

#[test]
fn a_list_of_eggs_is_not_taken_for_none() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), WEB).unwrap();
    let mut files = Files::new(vec![directory.path().into()]);
    look_twice(&mut files);
    let list = "apiVersion: v1\nkind: List\nitems: []\n";
    fs::write(directory.path().join("a.yaml"), list).unwrap();
    let look = look_twice(&mut files);
    assert!(look.problems[0].contains("kind: \"List\""), "{look:?}");
    assert_eq!(names(&files).len(), 1, "what was in force stays");
}
