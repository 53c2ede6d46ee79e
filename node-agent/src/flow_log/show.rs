//! `l7egg-node-agent denied`: what a running agent has recorded.

use std::{
    collections::BTreeSet, fmt::Write as _, io::Write as _, path::Path, process::ExitCode, time::Duration,
};

use anyhow::{Context, bail};

use super::{DeniedFlow, DeniedVerdict};
use crate::{ask, settings::DeniedSettings};

/// How often a running agent is asked for what is new.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Asks the agent and prints what it has recorded, and with `--follow` what comes after. Exit code 1 if there is
/// something to print.
///
/// # Errors
/// There is no agent, or it does not answer.
pub async fn run(settings: &DeniedSettings) -> anyhow::Result<ExitCode> {
    let mut after = 0;
    let mut is_any = false;
    loop {
        let flows = flows(&settings.admin_socket, after).await?;
        after = flows.iter().map(|flow| flow.number).max().unwrap_or(after);
        let wanted: Vec<&DeniedFlow> =
            flows.iter().filter(|flow| settings.pod.as_ref().is_none_or(|pod| *pod == flow.pod)).collect();
        is_any |= !wanted.is_empty();
        let text = if settings.json { lines_of_json(&wanted)? } else { lines(&wanted) };
        let mut out = std::io::stdout().lock();
        // A reader that goes away, such as head, has read enough.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() || !settings.follow {
            return Ok(if is_any { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        drop(out);
        tokio::select! {
            () = tokio::time::sleep(POLL_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(if is_any { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
        }
    }
}

async fn flows(socket: &Path, after: u64) -> anyhow::Result<Vec<DeniedFlow>> {
    let (code, text) = ask::ask(socket, &format!("/denied?after={after}")).await?;
    if code != 200 {
        bail!("{} answered {code}: {text}", socket.display());
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not of an agent of this version", socket.display()))
}

fn lines_of_json(flows: &[&DeniedFlow]) -> anyhow::Result<String> {
    let mut text = String::new();
    for flow in flows {
        text += &serde_json::to_string(flow)?;
        text.push('\n');
    }
    Ok(text)
}

/// One flow a line.
fn lines(flows: &[&DeniedFlow]) -> String {
    let mut text = String::new();
    for flow in flows {
        let verdict = match flow.verdict {
            DeniedVerdict::Denied => "denied",
            DeniedVerdict::Audit => "audit",
        };
        let pod = if flow.pod.is_empty() { "(pod gone)" } else { &flow.pod };
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

    #[test]
    fn a_line_for_people() {
        let flow = DeniedFlow {
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
        };
        assert_eq!(
            lines(&[&flow]),
            "2026-01-01T00:00:01.000Z audit  shop/a TCP 192.0.2.1 port 443 (api.example.com) by curl[12] 2 times: no rule allows it\n"
        );
        let read: DeniedFlow = serde_json::from_str(lines_of_json(&[&flow]).unwrap().trim()).unwrap();
        assert_eq!(read, flow);
    }

    #[tokio::test]
    async fn without_an_agent_it_says_so() {
        let settings =
            DeniedSettings { admin_socket: "/nowhere".into(), json: false, follow: false, pod: None };
        let error = run(&settings).await.unwrap_err();
        assert!(error.to_string().contains("is it running here"), "{error}");
    }
}
