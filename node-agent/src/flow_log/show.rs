//! `l7egg-node-agent denied`: what a running agent has recorded.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use l7egg_daemon::output;

use super::{DeniedFlow, DeniedVerdict};
use crate::{ask, settings::DeniedSettings, state::AgentState};

/// How often a running agent is asked for what is new.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Asks the agent and prints what it has recorded, and with `--follow` what comes after. Exit code 1 if there is
/// something to print.
///
/// # Errors
/// There is no agent, or it does not answer, or does not know the pod.
pub async fn run(settings: &DeniedSettings) -> anyhow::Result<ExitCode> {
    let mut after = 0;
    let mut is_any = false;
    let mut asked_for = settings.pod.as_deref();
    loop {
        let flows = flows(&settings.admin_socket, after, settings.pod.as_deref()).await?;
        if let Some(pod) = asked_for.take() {
            check_pod(pod, &flows, &settings.admin_socket).await?;
        }
        after = flows.iter().map(|flow| flow.number).max().unwrap_or(after);
        is_any |= !flows.is_empty();
        let text = if settings.json { lines_of_json(&flows)? } else { lines(&flows) };
        let is_read = output::print(&text)?;
        if !is_read || !settings.follow {
            return Ok(if is_any { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(if is_any { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
        }
    }
}

/// That nothing is denied to a pod is worth knowing only if there is such a pod.
async fn check_pod(pod: &str, flows: &[DeniedFlow], socket: &Path) -> anyhow::Result<()> {
    if !flows.is_empty() {
        return Ok(());
    }
    let (code, text) = ask::ask(socket, "/state").await?;
    let state: Option<AgentState> = serde_json::from_str(&text).ok().filter(|_| code == 200);
    let known = state.with_context(|| format!("{} is not of an agent of this version", socket.display()))?;
    if let Some(what) = unknown(pod, &known) {
        bail!(what);
    }
    Ok(())
}

/// What to say if there is no such pod.
fn unknown(pod: &str, known: &AgentState) -> Option<String> {
    if known.pods.iter().any(|known| known.name == pod) {
        return None;
    }
    Some(format!(
        "no Egg is for {pod} here, and nothing is recorded of it: write NAMESPACE/NAME of a pod of this node, `node NAME` of the node itself, or SLICE/UNIT of a unit, as `status` shows them"
    ))
}

/// Those of one pod, if it is given.
async fn flows(socket: &Path, after: u64, pod: Option<&str>) -> anyhow::Result<Vec<DeniedFlow>> {
    let mut query = form_urlencoded::Serializer::new(format!("/denied?after={after}"));
    pod.into_iter().for_each(|pod| _ = query.append_pair("pod", pod));
    let (code, text) = ask::ask_patiently(socket, &query.finish()).await?;
    if code != 200 {
        bail!("{} answered {code}: {text}", socket.display());
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not of an agent of this version", socket.display()))
}

fn lines_of_json(flows: &[DeniedFlow]) -> anyhow::Result<String> {
    let mut text = String::new();
    for flow in flows {
        text += &serde_json::to_string(flow)?;
        text.push('\n');
    }
    Ok(text)
}

/// One flow a line.
fn lines(flows: &[DeniedFlow]) -> String {
    let mut text = String::new();
    for flow in flows {
        let verdict = match flow.verdict {
            DeniedVerdict::Denied => "denied",
            DeniedVerdict::Audit => "audit",
        };
        let pod = if flow.pod.is_empty() { "(pod not known)" } else { &flow.pod };
        let _ = write!(text, "{} {verdict:<6} {pod} {} {}", flow.last, flow.protocol, flow.destination);
        if flow.port != 0 {
            let _ = write!(text, " port {}", flow.port);
        }
        let names: BTreeSet<&str> = flow.names.iter().map(String::as_str).collect();
        if !names.is_empty() {
            let _ = write!(text, " ({})", names.into_iter().collect::<Vec<_>>().join(", "));
        }
        if let Some(process) = &flow.process {
            let _ = write!(text, " by {}[{}]", process.comm, process.pid);
        }
        if flow.count > 1 {
            let _ = write!(text, " {} times", flow.count);
        }
        let _ = writeln!(text, ": {}", flow.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_log::Process;

    fn flow() -> DeniedFlow {
        DeniedFlow {
            number: 7,
            verdict: DeniedVerdict::Audit,
            pod: "shop/a".into(),
            uid: "u".into(),
            destination: "192.0.2.1".into(),
            port: 443,
            protocol: "TCP".into(),
            names: vec!["api.example.com".into()],
            rule: None,
            why: "no rule allows it".into(),
            process: Some(Process { pid: 12, comm: "curl".into() }),
            first: "2026-01-01T00:00:00.000Z".into(),
            last: "2026-01-01T00:00:01.000Z".into(),
            count: 2,
        }
    }

    #[test]
    fn a_line_for_people() {
        let flow = flow();
        assert_eq!(
            lines(std::slice::from_ref(&flow)),
            "2026-01-01T00:00:01.000Z audit  shop/a TCP 192.0.2.1 port 443 (api.example.com) by curl[12] 2 times: no rule allows it\n"
        );
        let read: DeniedFlow =
            serde_json::from_str(lines_of_json(std::slice::from_ref(&flow)).unwrap().trim()).unwrap();
        assert_eq!(read, flow);
    }

    /// An agent that knows one pod, and has recorded a flow of one that is gone.
    fn agent(directory: &Path) -> DeniedSettings {
        let socket = directory.join("agent.sock");
        let pod = serde_json::json!({"uid": "u", "name": "shop/a", "eggs": [], "resolvers": [], "state": "Enforced"});
        let pod = serde_json::from_value(pod).unwrap();
        let state = serde_json::to_string(&AgentState { pods: vec![pod], ..AgentState::default() }).unwrap();
        // Asked for one pod's, if at all.
        let denied = |uri: axum::http::Uri| async move {
            let gone = DeniedFlow { pod: "shop/gone".into(), ..flow() };
            let is_wanted = ["after=0", "after=0&pod=shop%2Fgone"].contains(&uri.query().unwrap_or_default());
            serde_json::to_string(is_wanted.then_some(&gone).as_slice()).unwrap()
        };
        let router = axum::Router::new()
            .route("/state", axum::routing::get(|| async { state }))
            .route("/denied", axum::routing::get(denied));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        DeniedSettings { admin_socket: socket, json: false, follow: false, pod: None }
    }

    #[tokio::test]
    async fn a_pod_that_nobody_knows_is_an_error_and_not_one_to_which_nothing_is_denied() {
        let directory = tempfile::tempdir().unwrap();
        let settings = agent(directory.path());
        let of = |pod: &str| DeniedSettings { pod: Some(pod.to_owned()), ..settings.clone() };
        assert_eq!(run(&settings).await.unwrap(), ExitCode::FAILURE);
        assert_eq!(run(&of("shop/a")).await.unwrap(), ExitCode::SUCCESS);
        assert_eq!(run(&of("shop/gone")).await.unwrap(), ExitCode::FAILURE);
        let error = run(&of("a")).await.unwrap_err().to_string();
        for form in ["NAMESPACE/NAME", "`node NAME`", "SLICE/UNIT"] {
            assert!(error.contains(form), "{error}");
        }
    }

    #[tokio::test]
    async fn without_an_agent_it_says_so() {
        let settings =
            DeniedSettings { admin_socket: "/nowhere".into(), json: false, follow: false, pod: None };
        let error = run(&settings).await.unwrap_err();
        assert!(error.to_string().contains("is it running here"), "{error}");
    }
}
