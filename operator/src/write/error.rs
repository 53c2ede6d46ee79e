//! Why a request failed.

use std::time::Duration;

use super::TIMEOUT;
use crate::index::Observed;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused it, or could not be asked.
    #[error("{}", words(.0))]
    Request(kube::Error),
    /// More than the API server stores in one object.
    #[error("it is too large for the API server to store: make the Egg smaller, or write several ({})", words(.0))]
    TooLarge(kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The answer has no name: it is no Kubernetes API server that answers.
    #[error("the API server's answer is no EggAssignment")]
    Answer,
    /// The object was stored, but not as it was sent.
    #[error(
        "the API server stored the EggAssignment otherwise than it was sent: its CustomResourceDefinition is \
         older or newer than the operator; apply the manifests of the operator's version"
    )]
    StoredOtherwise(Box<Observed>),
}

/// What etcd says of more than its `--max-request-bytes`, and the API server's client of etcd of more than 2 MiB. The API
/// server passes it on as an error of its own.
const TOO_LARGE: [&str; 2] = ["request is too large", "trying to send message larger than max"];

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status)
                if status.code == 413 || TOO_LARGE.iter().any(|words| status.message.contains(words)) =>
            {
                WriteError::TooLarge(error)
            }
            _ => WriteError::Request(error),
        }
    }
}

/// What etcd says when it has too much to do, as an error of the API server's.
const OVERLOADED: [&str; 2] = ["etcdserver: too many requests", "etcdserver: request timed out"];

impl WriteError {
    /// Whether the API server has too much to do, so that it should be left alone for a while.
    pub fn is_overload(&self) -> bool {
        match self {
            WriteError::Request(kube::Error::Api(status)) => {
                [429, 503, 504].contains(&status.code)
                    || OVERLOADED.iter().any(|words| status.message.contains(words))
            }
            WriteError::Timeout => true,
            _ => false,
        }
    }

    /// How long the API server wants to be left alone, if its answer says so. The header that may say the same is not passed
    /// on by the client.
    pub fn retry_after(&self) -> Option<Duration> {
        let WriteError::Request(kube::Error::Api(status)) = self else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// Whether the same request will very likely be refused again.
    pub fn is_refusal(&self) -> bool {
        match self {
            WriteError::Request(kube::Error::Api(status)) => {
                (400..500).contains(&status.code) && ![404, 408, 409, 429].contains(&status.code)
            }
            WriteError::Request(_) | WriteError::Timeout => false,
            WriteError::TooLarge(_) | WriteError::Answer | WriteError::StoredOtherwise(_) => true,
        }
    }
}

/// The API server's own message, where there is one: kube prints the whole answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16, message: &str) -> WriteError {
        kube::Error::Api(Status { code, message: message.to_owned(), ..Status::default() }.boxed()).into()
    }

    #[test]
    fn what_is_too_large_is_not_sent_again_and_again() {
        for error in [
            error(500, "etcdserver: request is too large"),
            error(
                500,
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (3 vs. 2)",
            ),
            error(413, "Request entity too large: limit is 3145728"),
        ] {
            assert!(error.is_refusal(), "{error}");
            assert!(error.to_string().contains("make the Egg smaller"), "{error}");
        }
    }

    #[test]
    fn refusals_are_what_will_be_refused_again() {
        for (code, is_refusal) in [
            (400, true),
            (403, true),
            (422, true),
            (404, false),
            (409, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(error(code, "no").is_refusal(), is_refusal, "{code}");
        }
    }

    #[test]
    fn overload_is_what_the_object_has_no_part_in() {
        for (code, message, is_overload) in [
            (429, "Too many requests, please try again later.", true),
            (503, "apiserver is shutting down", true),
            (504, "timeout: request did not complete within the allotted timeout", true),
            (500, "etcdserver: too many requests", true),
            (500, "etcdserver: request is too large", false),
            (403, "exceeded quota", false),
            (409, "conflict", false),
        ] {
            assert_eq!(error(code, message).is_overload(), is_overload, "{code} {message}");
        }
        assert!(WriteError::Timeout.is_overload());
    }

    #[test]
    fn the_answer_may_say_how_long_to_wait() {
        let status = serde_json::json!({"code": 429, "message": "busy", "details": {"retryAfterSeconds": 7}});
        let status: Status = serde_json::from_value(status).unwrap();
        let error = WriteError::from(kube::Error::Api(status.boxed()));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(WriteError::Timeout.retry_after(), None);
    }
}
