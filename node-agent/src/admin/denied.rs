//! `/denied`: the flows that were denied, or would have been.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::IntoResponse,
};
use l7egg_daemon::panics;
use tokio::sync::Mutex;

use super::{Admin, Answer, json, plain};

/// The flows that changed after the number in `?after=`, 0 if there is none; with `pod=` those of this pod only.
pub(super) async fn denied(State(admin): State<Admin>, uri: Uri) -> impl IntoResponse {
    let Some(Asked { after, pod }) = asked(uri.query().unwrap_or_default()) else {
        return plain(StatusCode::BAD_REQUEST, "after is a number\n".to_owned());
    };
    let Admin { outcome, flow_log, explaining, .. } = admin;
    explained(explaining, move || {
        let now = Arc::clone(&outcome.borrow());
        serde_json::to_string(&flow_log.since(after, pod.as_deref(), &now.pods))
    })
    .await
}

struct Asked {
    after: u64,
    pod: Option<String>,
}

fn asked(query: &str) -> Option<Asked> {
    let mut asked = Asked { after: 0, pod: None };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => asked.after = value.parse().ok()?,
            "pod" => asked.pod = Some(value.into_owned()),
            _ => {}
        }
    }
    Some(asked)
}

/// Explaining reads patterns, thousands of them maybe. It is only for people: the agent goes on without, and whoever asks waits for
/// who asked before, who may have given up since.
async fn explained(
    explaining: Arc<Mutex<()>>,
    explain: impl FnOnce() -> serde_json::Result<String> + Send + 'static,
) -> Answer {
    let turn = explaining.lock_owned().await;
    let explained = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        panics::caught(explain)
    });
    let why = match explained.await {
        Ok(Ok(flows)) => return json(flows),
        Ok(Err(panic)) => panics::message(&*panic).to_owned(),
        Err(error) => error.to_string(),
    };
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the flows cannot be explained, which is a fault of l7egg: please report it: {why}\n"),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn where_it_fails_that_is_not_taken_for_nothing() {
        let (status, _, text) = explained(Arc::default(), || panic!("at the disco")).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.contains("cannot be explained") && text.contains("at the disco"), "{text}");
    }

    #[tokio::test]
    async fn one_at_a_time_though_nobody_waits_any_more() {
        static AT_WORK: AtomicUsize = AtomicUsize::new(0);
        let explaining = Arc::default();
        let slow = || {
            let others = AT_WORK.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(200));
            AT_WORK.fetch_sub(1, Ordering::SeqCst);
            Ok(others.to_string())
        };
        let first = tokio::spawn(explained(Arc::clone(&explaining), slow));
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.abort();
        assert_eq!(explained(explaining, slow).await.2, "0\n");
    }

    #[test]
    fn what_is_asked() {
        let read = |query| asked(query).map(|asked| (asked.after, asked.pod));
        assert_eq!(read(""), Some((0, None)));
        assert_eq!(read("after=7"), Some((7, None)), "as older programs ask");
        let pod = |name: &str| Some(name.to_owned());
        assert_eq!(read("after=7&pod=shop/a"), Some((7, pod("shop/a"))));
        assert_eq!(read("after=7&pod=node+node1&what=ever"), Some((7, pod("node node1"))));
        assert_eq!(read("after=x"), None);
    }
}
