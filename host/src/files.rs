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
        other if other.ends_with("List") && value.get("items").is_some() => {
            return Err(format!(
                "kind: {other:?} has several objects in one: write them one after another, with --- between them"
            ));
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
mod tests;
