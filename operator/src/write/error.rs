//! Why a request failed.

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

impl WriteError {
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
}
