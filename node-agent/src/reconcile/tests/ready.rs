//! What an agent waits for until it is ready.

use super::*;
use crate::kinds::Kind;

fn told_of_pods(hold: HoldSettings, selected: Selected) -> Reconciler<FakeDatapath> {
    holding(FakeDatapath::default(), hold).with_pods(selected)
}

fn awaited(agent: &mut Reconciler<FakeDatapath>) -> Vec<String> {
    agent.pass().unwrap().state.awaited
}

fn tell(agent: &mut Reconciler<FakeDatapath>, news: News) {
    agent.take(Input::Selected(news));
}

const HOLDS: HoldSettings = HoldSettings::AtMost(Duration::from_secs(10));

#[test]
fn an_agent_that_holds_waits_for_all_that_decides_about_it() {
    for hold in [HOLDS, HoldSettings::Strict] {
        let mut agent = told_of_pods(hold, Selected::default());
        assert_eq!(awaited(&mut agent).len(), 6);
        list(&mut agent, &[]);
        let state = agent.pass().unwrap().state;
        assert!(state.synced, "its meaning is another one");
        assert_eq!(state.awaited.len(), 5);
        let lists = [
            News::Pod(Event::InitDone),
            News::Egg(Event::InitDone),
            News::ClusterEgg(Event::InitDone),
            News::Namespace(Event::InitDone),
        ];
        for (left, news) in (1..=4).rev().zip(lists) {
            tell(&mut agent, news);
            assert_eq!(awaited(&mut agent).len(), left);
        }
        agent.take(Input::Cgroup(CgroupEvent::Scanned(PodCgroups::default())));
        assert!(awaited(&mut agent)[0].contains("cgroups"), "it was not complete");
        cgroups(&mut agent, &["p1"]);
        assert_eq!(awaited(&mut agent), [""; 0]);

        // What is lost later takes nothing back.
        tell(&mut agent, News::Pod(Event::Init));
        agent.take(Input::Unwatched(Kind::Pods, Some("gone".into())));
        agent.take(Input::Cgroup(CgroupEvent::Scanned(PodCgroups::default())));
        assert_eq!(awaited(&mut agent), [""; 0]);
    }
}

#[test]
fn why_something_is_not_listed_is_said() {
    let mut agent = told_of_pods(HOLDS, Selected::default());
    agent.take(Input::Unwatched(Kind::Eggs, Some("eggs.l7egg.dev is forbidden".into())));
    let of_eggs = |awaited: &[String]| {
        awaited.iter().any(|it| it.ends_with("list of eggs: eggs.l7egg.dev is forbidden"))
    };
    assert!(of_eggs(&awaited(&mut agent)));
    agent.take(Input::Unwatched(Kind::Eggs, None));
    assert!(!of_eggs(&awaited(&mut agent)));
}

#[test]
fn what_is_lost_later_is_said_until_it_is_back() {
    let mut agent = told_of_pods(HoldSettings::Never, Selected::without_eggs());
    list(&mut agent, &[]);
    tell(&mut agent, News::Pod(Event::InitDone));
    let unwatched = |agent: &mut Reconciler<FakeDatapath>| agent.pass().unwrap().state.unwatched;
    assert_eq!(unwatched(&mut agent), []);
    agent.take(Input::Unwatched(Kind::Pods, Some("connection refused".into())));
    let lost = unwatched(&mut agent);
    assert_eq!((lost[0].kind.as_str(), lost[0].error.as_str()), ("pods", "connection refused"));
    agent.take(Input::Unwatched(Kind::Pods, Some("forbidden".into())));
    let now = unwatched(&mut agent);
    assert_eq!((&now[0].since, now[0].error.as_str(), now.len()), (&lost[0].since, "forbidden", 1));
    assert_eq!(awaited(&mut agent), [""; 0], "it has been ready");
    agent.take(Input::Unwatched(Kind::Pods, None));
    assert_eq!(unwatched(&mut agent), []);
}

#[test]
fn an_agent_that_never_holds_waits_for_assignments_and_pods() {
    let mut agent = told_of_pods(HoldSettings::Never, Selected::without_eggs());
    let list_of = |kind: &str| format!("the API server's list of {kind}");
    assert_eq!(awaited(&mut agent), [list_of("eggassignments"), list_of("pods")]);
    list(&mut agent, &[]);
    assert_eq!(awaited(&mut agent), [list_of("pods")]);
    agent.take(Input::Selected(News::Pod(Event::InitDone)));
    assert_eq!(awaited(&mut agent), [""; 0]);
}

#[test]
fn a_host_waits_for_files() {
    let mut agent = holding(FakeDatapath::default(), HoldSettings::Never);
    assert!(matches!(awaited(&mut agent).as_slice(), [files] if files.contains("`l7egg check`")));
    list(&mut agent, &[]);
    assert_eq!(awaited(&mut agent), [""; 0]);
}
