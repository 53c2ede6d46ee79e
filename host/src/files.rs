//! Files with Eggs. One that cannot be read as it is now keeps what it said before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kube::api::DynamicObject;
use l7egg_crds::{EggKind, GROUP};
use l7egg_operator::{
    index::{Accepted, Egg, EggKey, Rejection},
    read,
};
use serde::Deserialize;
use serde_json::Value;

use crate::fields;

/// The namespace of an Egg that names none: that of the host's services.
pub const NAMESPACE: &str = "system";

/// The version of the API that is read.
const VERSION: &str = "v1alpha1";

/// What is written in the files.
#[derive(Debug, Default)]
pub struct Files {
    paths: Vec<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    /// The Eggs that were accepted last, which stay while their newest form is not.
    accepted: BTreeMap<EggKey, Egg>,
    /// What could not be read at the last look.
    unreadable: BTreeSet<String>,
    /// Texts that are other than what is known, and files that are gone, since when.
    unsettled: BTreeMap<PathBuf, (Option<String>, Instant)>,
    has_looked: bool,
    /// Whether every file has been read at least once, and every Egg been accepted.
    is_whole: bool,
}

/// What a file says counts when it has said so for so long: it may be being written.
pub const SETTLED: Duration = Duration::from_millis(300);

/// A file.
#[derive(Debug, Default)]
struct Known {
    text: String,
    eggs: Vec<Egg>,
    /// Whether any text of it could be read.
    is_read: bool,
}

/// What a look at the files showed.
#[derive(Debug, Default, PartialEq)]
pub struct Look {
    /// Whether anything is another than at the last look.
    pub changed: bool,
    /// What is wrong, for people; only what is new.
    pub problems: Vec<String>,
    /// What is left aside, for people; only what is new.
    pub ignored: Vec<String>,
}

impl Files {
    /// These files, and those of these directories. Nothing is read yet.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Files { paths, ..Files::default() }
    }

    /// Whether it is known what all files say, and all of that can be enforced. Before, an Egg that is missing may be one that cannot be
    /// read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Reads what is another than at the last look, and has been for a moment.
    pub fn look(&mut self, now: Instant) -> Look {
        let mut look = Look::default();
        let mut found = Vec::new();
        let mut unreadable = BTreeSet::new();
        for path in &self.paths {
            match listed(path) {
                Ok(files) => found.extend(files),
                Err(error) => {
                    // What was read of it stays.
                    found.extend(self.known.keys().filter(|file| file.starts_with(path)).cloned());
                    unreadable.insert(format!("{}: {error}", path.display()));
                }
            }
        }
        // The first look may come upon a file that is being written.
        let mut is_whole = self.has_looked && unreadable.is_empty();
        let gone: Vec<PathBuf> = self.known.keys().filter(|file| !found.contains(file)).cloned().collect();
        for file in gone {
            if self.is_settled(&file, None, now) {
                self.known.remove(&file);
                look.changed = true;
            } else {
                is_whole = false;
            }
        }
        for file in found {
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    unreadable.insert(format!("{}: {error}", file.display()));
                    is_whole &= self.known.get(&file).is_some_and(|known| known.is_read);
                    continue;
                }
            };
            let is_known = self.known.get(&file).is_some_and(|known| known.text == text);
            if !is_known && self.has_looked && !self.is_settled(&file, Some(&text), now) {
                // What it said at the first look may have been the half of it.
                is_whole = false;
                continue;
            }
            self.unsettled.remove(&file);
            let known = self.known.entry(file.clone()).or_default();
            if is_known {
                is_whole &= known.is_read;
                continue;
            }
            known.text = text;
            match eggs(&known.text) {
                Ok((eggs, ignored)) => {
                    let told = ignored.into_iter().map(|what| format!("{}: {what}", file.display()));
                    look.ignored.extend(told);
                    known.eggs = eggs;
                    known.is_read = true;
                    look.changed = true;
                }
                Err(error) => look
                    .problems
                    .push(format!("{}: {error}; what the file said before stays in force", file.display())),
            }
            is_whole &= known.is_read;
        }
        self.has_looked = true;
        look.problems.extend(unreadable.difference(&self.unreadable).cloned());
        self.unreadable = unreadable;
        if look.changed {
            self.accept(&mut look);
        }
        let written = self.known.values().flat_map(|known| &known.eggs);
        is_whole &= written.into_iter().all(|egg| self.accepted.contains_key(&egg.key));
        self.is_whole |= is_whole;
        look
    }

    /// Whether a file has been so for long enough.
    fn is_settled(&mut self, file: &Path, text: Option<&String>, now: Instant) -> bool {
        match self.unsettled.get(file) {
            Some((before, since)) if before.as_ref() == text => {
                let is_settled = now.saturating_duration_since(*since) >= SETTLED;
                if is_settled {
                    self.unsettled.remove(file);
                }
                is_settled
            }
            _ => {
                self.unsettled.insert(file.to_owned(), (text.cloned(), now));
                false
            }
        }
    }

    /// The Eggs to be enforced: each as it was accepted last.
    pub fn accepted(&self) -> impl Iterator<Item = &Egg> {
        self.accepted.values()
    }

    fn accept(&mut self, look: &mut Look) {
        let mut accepted = BTreeMap::new();
        for (file, egg) in
            self.known.iter().flat_map(|(file, known)| known.eggs.iter().map(move |egg| (file, egg)))
        {
            match &egg.spec {
                Ok(_) if accepted.contains_key(&egg.key) => {
                    look.problems.push(format!(
                        "{}: {} is in another file as well, which counts",
                        file.display(),
                        egg.key
                    ));
                }
                Ok(_) => {
                    accepted.insert(egg.key.clone(), egg.clone());
                }
                Err(rejection) => {
                    look.problems.push(format!("{}: {}: {}", file.display(), egg.key, rejection.message));
                    if let Some(before) = self.accepted.remove(&egg.key) {
                        accepted.entry(egg.key.clone()).or_insert(before);
                    }
                }
            }
        }
        self.accepted = accepted;
    }
}

/// A file, or those of a directory that are YAML, in order of their names.
fn listed(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Result<Vec<_>, _> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let is_hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_yaml =
        |path: &PathBuf| path.extension().is_some_and(|it| it == "yaml" || it == "yml") && !is_hidden(path);
    let mut files: Vec<PathBuf> = entries?.into_iter().filter(is_yaml).collect();
    files.sort();
    Ok(files)
}

/// The Eggs of a text, and what else is in it.
fn eggs(text: &str) -> Result<(Vec<Egg>, Vec<String>), String> {
    let (mut eggs, mut ignored) = (Vec::new(), Vec::new());
    for (number, document) in (1..).zip(serde_yaml::Deserializer::from_str(text)) {
        // By way of a value of YAML, which has no field twice.
        let value = serde_yaml::Value::deserialize(document).map_err(|error| error.to_string())?;
        let of = |what: String| format!("document {number}: {what}");
        let value = serde_json::to_value(value)
            .map_err(|error| of(format!("is not what JSON could say: {error}")))?;
        if value.is_null() {
            continue;
        }
        match egg(&value).map_err(of)? {
            Some(egg) => eggs.push(egg),
            None => ignored.push(of(format!(
                "a {} of {} is nothing to a host without Kubernetes",
                value["kind"].as_str().unwrap_or_default(),
                value["apiVersion"].as_str().unwrap_or_default()
            ))),
        }
    }
    Ok((eggs, ignored))
}

/// An object as an Egg, if it is one. What it is has to be certain: an Egg that is taken for another one ends what was in force.
fn egg(value: &Value) -> Result<Option<Egg>, String> {
    let mut object = DynamicObject::deserialize(value).map_err(|error| format!("is no object: {error}"))?;
    let types = object.types.take();
    let types = types
        .ok_or_else(|| format!("apiVersion and kind: write {GROUP}/{VERSION}, and Egg or ClusterEgg"))?;
    let is_ours = types.api_version.split('/').next() == Some(GROUP);
    let kind = match types.kind.as_str() {
        "Egg" => EggKind::Egg,
        "ClusterEgg" => EggKind::ClusterEgg,
        other if is_ours && other != "EggAssignment" => {
            return Err(format!("kind: {other:?} is none of {GROUP}: write Egg or ClusterEgg"));
        }
        _ => return Ok(None),
    };
    if types.api_version != format!("{GROUP}/{VERSION}") {
        return Err(format!("apiVersion: {:?} is not known: write {GROUP}/{VERSION}", types.api_version));
    }
    if let Some(unknown) = fields::unknown_in_head(value).first() {
        return Err(unknown.to_string());
    }
    if object.metadata.name.as_ref().is_none_or(String::is_empty) {
        return Err("metadata.name: is missing".into());
    }
    let egg = match kind {
        EggKind::Egg => {
            object.metadata.namespace.get_or_insert_with(|| NAMESPACE.to_owned());
            read::egg(&object)
        }
        EggKind::ClusterEgg => {
            object.metadata.namespace = None;
            read::cluster_egg(&object)
        }
    };
    let mut egg = egg.ok_or("metadata.deletionTimestamp: it is being deleted: leave it out")?;
    let unknown = fields::unknown_in_spec(kind, value);
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        egg.spec = Err(rejected(egg.spec, &unknown.join("; ")));
    }
    if let Ok(accepted) = &egg.spec
        && let Some(problem) = not_for_units(accepted)
    {
        egg.spec = Err(rejected(egg.spec, problem));
    }
    Ok(Some(egg))
}

/// What pods have and units have not. For the host itself both are refused anyway.
fn not_for_units(accepted: &Accepted) -> Option<&'static str> {
    if !accepted.policy.containers.is_empty() {
        return Some("spec.containers: is for pods: a unit is enforced as a whole, so leave it out");
    }
    accepted
        .policy
        .shaping
        .as_ref()
        .map(|_| "spec.shaping: is for pods: units have no bandwidth limits, so leave it out")
}

/// What is said against it, with what was said before.
fn rejected(spec: Result<Accepted, Rejection>, problem: &str) -> Rejection {
    let before = spec.err().map(|rejection| format!("; {}", rejection.message)).unwrap_or_default();
    Rejection { reason: "Invalid", message: format!("{problem}{before}"), selection: None }
}

#[cfg(test)]
mod tests {
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
            (
                "ports:",
                "prots:",
                "Egg system/web: spec.egress[0].prots: there is no such field: is ports meant?",
            ),
            (
                "action:",
                "acton:",
                "Egg system/web: spec.egress[1].acton: there is no such field: is action meant?",
            ),
            (
                "mode: Enforce",
                "mod: Audit",
                "Egg system/web: spec.mod: there is no such field: is mode meant?",
            ),
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
}
