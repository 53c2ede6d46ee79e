use serde_json::json;

use super::*;
use crate::read::{egg_key, judge};

fn object(namespace: &str, name: &str, uid: &str, cidr: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "generation": 1},
        "spec": {"podSelector": {}, "egress": [{"to": [{"cidr": cidr}]}]},
    }))
    .unwrap()
}

/// The news of an Egg that is told, in short.
fn tell(judging: &mut Judging, object: DynamicObject) -> Vec<String> {
    judging.told(Event::Apply(object)).iter().map(short).collect()
}

fn short(change: &Change<Egg, EggKey>) -> String {
    match change {
        Change::Listing => "listing".to_owned(),
        Change::Listed => "listed".to_owned(),
        Change::Present(key) => format!("present {}", key.name),
        Change::Gone(key) => format!("gone {}", key.name),
        Change::Set(egg) => format!("{} {}", if egg.spec.is_ok() { "good" } else { "bad" }, egg.key.name),
    }
}

fn finish(judging: &mut Judging, job: Job) -> Option<String> {
    judging.judged(job.done(judge)).as_ref().map(short)
}

#[test]
fn a_spec_is_judged_once_and_its_successor_anew() {
    let mut judging = Judging::new(egg_key);
    assert_eq!(tell(&mut judging, object("shop", "a", "u", "10.0.0.0/8")), ["present a"]);
    let job = judging.next_job(Instant::now()).unwrap();
    assert_eq!(finish(&mut judging, job).unwrap(), "good a");
    assert_eq!(tell(&mut judging, object("shop", "a", "u", "10.0.0.0/8")), ["good a"]);
    assert!(judging.next_job(Instant::now()).is_none());
    // Of the same generation, as where etcd was restored and it was edited again.
    assert_eq!(tell(&mut judging, object("shop", "a", "u", "nonsense")), ["present a"]);
    let job = judging.next_job(Instant::now()).unwrap();
    assert_eq!(finish(&mut judging, job).unwrap(), "bad a");
}

#[test]
fn an_egg_that_is_edited_again_is_judged_as_it_is_now() {
    let mut judging = Judging::new(egg_key);
    for number in 0..5 {
        tell(&mut judging, object("shop", "a", "u", &format!("10.{number}.0.0/16")));
    }
    let job = judging.next_job(Instant::now()).unwrap();
    assert_eq!(job.object.data["spec"]["egress"][0]["to"][0]["cidr"], "10.4.0.0/16");
    // Edited while it is judged: not twice at a time, and what is said of the old one is not told.
    tell(&mut judging, object("shop", "a", "u", "10.5.0.0/16"));
    tell(&mut judging, object("shop", "a", "u", "10.6.0.0/16"));
    assert!(judging.next_job(Instant::now()).is_none());
    assert_eq!(finish(&mut judging, job), None);
    let job = judging.next_job(Instant::now()).unwrap();
    assert_eq!(job.object.data["spec"]["egress"][0]["to"][0]["cidr"], "10.6.0.0/16");
    assert_eq!(finish(&mut judging, job).unwrap(), "good a");
    assert!(judging.next_job(Instant::now()).is_none());
}

#[test]
fn namespaces_take_turns() {
    let mut judging = Judging::new(egg_key);
    for number in 0..100 {
        tell(&mut judging, object("greedy", &format!("a{number}"), "u", "10.0.0.0/8"));
    }
    tell(&mut judging, object("modest", "b", "u", "10.0.0.0/8"));
    let order: Vec<_> =
        std::iter::from_fn(|| judging.next_job(Instant::now())).map(|job| job.key.name).collect();
    assert_eq!(order[..3], ["a0", "b", "a1"]);
    assert_eq!(order.len(), 101);
}

#[test]
fn another_egg_of_the_same_name_begins_with_nothing() {
    let mut judging = Judging::new(egg_key);
    tell(&mut judging, object("shop", "a", "u", "10.0.0.0/8"));
    let job = judging.next_job(Instant::now()).unwrap();
    finish(&mut judging, job);
    assert_eq!(tell(&mut judging, object("shop", "a", "v", "10.0.0.0/8")), ["gone a", "present a"]);
}

#[test]
fn one_that_is_gone_is_not_brought_back_by_its_judgement() {
    let mut judging = Judging::new(egg_key);
    let egg = object("shop", "a", "u", "10.0.0.0/8");
    tell(&mut judging, egg.clone());
    let job = judging.next_job(Instant::now()).unwrap();
    assert_eq!(judging.told(Event::Delete(egg)).iter().map(short).collect::<Vec<_>>(), ["gone a"]);
    assert_eq!(finish(&mut judging, job), None);
    // One that is being deleted asks for nothing any more.
    let mut ending = object("shop", "b", "u", "10.0.0.0/8");
    ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(tell(&mut judging, ending), ["gone b"]);
    assert!(judging.next_job(Instant::now()).is_none());
}

#[test]
fn what_is_not_in_a_list_is_gone_also_if_it_was_judged_meanwhile() {
    let mut judging = Judging::new(egg_key);
    tell(&mut judging, object("shop", "a", "u", "10.0.0.0/8"));
    let job = judging.next_job(Instant::now()).unwrap();
    let mut told = |event: Event<DynamicObject>| judging.told(event).iter().map(short).collect::<Vec<_>>();
    assert_eq!(told(Event::Init), ["listing"]);
    assert_eq!(told(Event::InitApply(object("shop", "b", "u", "10.0.0.0/8"))), ["present b"]);
    assert_eq!(finish(&mut judging, job).unwrap(), "good a");
    let done: Vec<_> = judging.told(Event::InitDone).iter().map(short).collect();
    assert_eq!(done, ["gone a", "listed"]);
}

#[test]
fn one_that_is_edited_again_and_again_is_judged_later_and_later() {
    let mut judging = Judging::new(egg_key);
    let start = Instant::now();
    let mut now = start;
    let mut times = Vec::new();
    for number in 0..14 {
        assert_eq!(
            tell(&mut judging, object("shop", "a", "u", &format!("10.{number}.0.0/16"))),
            ["present a"]
        );
        let job = judging.next_job(now).unwrap_or_else(|| {
            // Edits while it waits do not hasten it, and others do not wait with it.
            tell(&mut judging, object("shop", "a", "u", &format!("10.{number}.1.0/24")));
            tell(&mut judging, object("shop", &format!("b{number}"), "u", "10.0.0.0/8"));
            let other = judging.next_job(now).unwrap();
            assert_eq!(other.key.name, format!("b{number}"));
            assert_eq!(finish(&mut judging, other).unwrap(), format!("good b{number}"));
            assert!(judging.next_job(now).is_none());
            now = judging.next_due().unwrap();
            judging.next_job(now).unwrap()
        });
        assert_eq!(finish(&mut judging, job).unwrap(), "good a");
        times.push((now - start).as_millis());
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [0, 0, 0, 0, 100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000]);
}

#[test]
fn one_that_waits_and_goes_back_to_what_is_known_is_not_judged() {
    let mut judging = Judging::new(egg_key);
    let now = Instant::now();
    for number in 0..5 {
        tell(&mut judging, object("shop", "a", "u", &format!("10.{number}.0.0/16")));
        let job = judging.next_job(now).unwrap();
        finish(&mut judging, job);
    }
    assert_eq!(tell(&mut judging, object("shop", "a", "u", "10.5.0.0/16")), ["present a"]);
    assert!(judging.next_job(now).is_none());
    assert_eq!(tell(&mut judging, object("shop", "a", "u", "10.4.0.0/16")), ["good a"]);
    assert!(judging.next_job(judging.next_due().unwrap()).is_none());
    assert_eq!(judging.next_due(), None);
}

#[test]
fn deleting_and_making_anew_is_editing_as_well() {
    let mut judging = Judging::new(egg_key);
    let start = Instant::now();
    let mut now = start;
    let mut times = Vec::new();
    for number in 0..9 {
        let egg = object("shop", "a", &format!("u{number}"), "10.0.0.0/8");
        tell(&mut judging, egg.clone());
        let job = judging.next_job(now).unwrap_or_else(|| {
            // Nor does it get into line twice.
            judging.told(Event::Delete(egg.clone()));
            tell(&mut judging, egg.clone());
            assert!(judging.next_job(now).is_none());
            now = judging.next_due().unwrap();
            judging.next_job(now).unwrap()
        });
        assert!(judging.next_job(now).is_none());
        assert_eq!(finish(&mut judging, job).unwrap(), "good a");
        times.push((now - start).as_millis());
        judging.told(Event::Delete(egg));
    }
    assert_eq!(times, [0, 0, 0, 0, 0, 100, 300, 700, 1500]);
    // What is left of it goes when it is quiet.
    assert!(judging.next_job(now + Duration::from_secs(11)).is_none());
    assert!(judging.paces.wait(&EggKey::egg("shop", "a"), &LIMITS, now).is_none());
    assert!(judging.running.is_empty() && judging.in_line.is_empty() && judging.next_due().is_none());
}

#[test]
fn one_that_is_made_anew_while_it_is_judged_is_not_judged_twice_at_a_time() {
    let mut judging = Judging::new(egg_key);
    let now = Instant::now();
    tell(&mut judging, object("shop", "a", "u", "10.0.0.0/8"));
    let job = judging.next_job(now).unwrap();
    for number in 0..3 {
        let egg = object("shop", "a", &format!("v{number}"), "10.1.0.0/16");
        judging.told(Event::Delete(egg.clone()));
        tell(&mut judging, egg);
        assert!(judging.next_job(now).is_none());
    }
    assert_eq!(finish(&mut judging, job), None);
    let job = judging.next_job(now).unwrap();
    assert_eq!(job.object.metadata.uid.as_deref(), Some("v2"));
    assert_eq!(finish(&mut judging, job).unwrap(), "good a");
    assert!(judging.next_job(now).is_none());
}
