//! How a status is written.

use kube::api::Patch;
use serde::Serialize;
use serde_json::{Value, json};

/// A JSON Patch (RFC 6902) that puts `status` in the place of the one that is there; refused by the API server if the object is
/// another than that of `uid`. A merge patch would leave alone whatever the new status no longer has.
///
/// # Errors
/// When the status cannot be said in JSON.
pub fn status_patch(uid: Option<&str>, status: &impl Serialize) -> Result<Patch<Value>, serde_json::Error> {
    let mut operations = Vec::new();
    if let Some(uid) = uid {
        operations.push(json!({"op": "test", "path": "/metadata/uid", "value": uid}));
    }
    operations.push(json!({"op": "add", "path": "/status", "value": serde_json::to_value(status)?}));
    Ok(Patch::Json(serde_json::from_value(Value::Array(operations))?))
}
