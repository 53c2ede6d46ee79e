//! `l7egg-node-agent status`: what a running agent says, as a table.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Context, bail};
use l7egg_crds::PodState;
use l7egg_daemon::output;

use crate::{
    ask::ask,
    settings::StatusSettings,
    state::{AgentState, Unwatched},
};

/// Asks the agent and prints its answer. Exit code 1 if some pod failed.
///
/// # Errors
/// There is no agent, or it does not answer.
pub async fn run(settings: &StatusSettings) -> anyhow::Result<ExitCode> {
    let socket = &settings.admin_socket;
    let (code, text) = ask(socket, "/state").await?;
    if code != 200 {
        bail!("{} answered {code}: {text}", socket.display());
    }
    let state: AgentState = serde_json::from_str(&text)
        .with_context(|| format!("{} is not of an agent of this version", socket.display()))?;
    output::print(&if settings.json { text } else { table(&state) })?;
    let failed = state.pods.iter().any(|pod| pod.state == PodState::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The state as people read it.
#[must_use]
pub fn table(state: &AgentState) -> String {
    let mut rows = vec![["POD", "STATE", "REASON", "POLICY", "LIMIT", "EGGS"].map(str::to_owned)];
    rows.extend(state.pods.iter().map(|pod| {
        [
            if pod.name.is_empty() { pod.uid.clone() } else { pod.name.clone() },
            format!("{:?}", pod.state),
            pod.reason.clone(),
            pod.policy.clone().unwrap_or_default(),
            pod.egress_limit.clone(),
            pod.eggs.join(", "),
        ]
    }));
    let mut text = columns(&rows);
    for pod in state.pods.iter().filter(|pod| !pod.message.is_empty()) {
        let _ = writeln!(text, "{}: {}", if pod.name.is_empty() { &pod.uid } else { &pod.name }, pod.message);
    }
    for limit in &state.limits {
        let _ = writeln!(text, "limit reached: {}", limit.message());
    }
    for (name, message) in state.assignments.iter().filter_map(|a| Some((&a.name, a.unreadable.as_ref()?))) {
        let _ = writeln!(text, "{name}: {message}");
    }
    if !state.synced {
        text += "It is not known yet what is to be enforced here; what was enforced before still is.\n";
    }
    for awaited in &state.awaited {
        let _ = writeln!(text, "Not ready, waiting for {awaited}");
    }
    for Unwatched { kind, since, error } in &state.unwatched {
        let _ = writeln!(text, "cannot be watched since {since}: {kind}: {error}");
    }
    if !state.cgroups_found {
        text += "No kubepods directory was found in any cgroup2 mount.\n";
    }
    let count = |wanted| state.pods.iter().filter(|pod| pod.state == wanted).count();
    let _ = writeln!(
        text,
        "{} pods enforced, {} audited, {} pending, {} failed; {} policies, {} assignments",
        count(PodState::Enforced),
        count(PodState::Audited),
        count(PodState::Pending),
        count(PodState::Failed),
        state.policies.len(),
        state.assignments.len()
    );
    text
}

/// Left-aligned columns, two spaces apart, as kubectl prints them.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = width(column));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::PodStatus;

    #[test]
    fn a_table_for_people() {
        let pod = PodStatus {
            uid: "u1".into(),
            name: "shop/a".into(),
            eggs: vec!["Egg shop/checkout".into()],
            resolvers: vec![],
            cgroup: None,
            subject: None,
            policy: None,
            egress_limit: "5M of Egg shop/checkout".into(),
            state: PodState::Failed,
            reason: "MapFull".into(),
            message: "map X is full".into(),
        };
        let state =
            AgentState { synced: true, cgroups_found: true, pods: vec![pod], ..AgentState::default() };
        assert_eq!(
            table(&state),
            "\
POD     STATE   REASON   POLICY  LIMIT                    EGGS
shop/a  Failed  MapFull          5M of Egg shop/checkout  Egg shop/checkout
shop/a: map X is full
0 pods enforced, 0 audited, 0 pending, 1 failed; 0 policies, 0 assignments
"
        );
    }

    #[test]
    fn what_an_agent_waits_for_is_told() {
        let awaited = vec!["the API server's list of pods: forbidden".into()];
        let state = AgentState { synced: true, cgroups_found: true, awaited, ..AgentState::default() };
        assert!(
            table(&state).contains("\nNot ready, waiting for the API server's list of pods: forbidden\n")
        );
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        let unwatched = vec![Unwatched {
            kind: "eggs".into(),
            since: "2026-01-01T00:00:00Z".into(),
            error: "eggs.l7egg.dev is forbidden".into(),
        }];
        let state = AgentState { synced: true, cgroups_found: true, unwatched, ..AgentState::default() };
        let line = "\ncannot be watched since 2026-01-01T00:00:00Z: eggs: eggs.l7egg.dev is forbidden\n";
        assert!(table(&state).contains(line), "{}", table(&state));
    }

    #[tokio::test]
    async fn without_an_agent_it_says_so() {
        let settings = StatusSettings { admin_socket: "/nowhere".into(), json: false };
        let error = run(&settings).await.unwrap_err();
        assert!(error.to_string().contains("is it running here"), "{error}");
    }
}
