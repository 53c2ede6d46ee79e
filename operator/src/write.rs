//! The requests that write to the API server.

mod error;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions,
};
use kube::{Client, Resource};
use l7egg_crds::{
    ClusterEgg, Egg, EggAssignment, EggAssignmentSpec, EggKind, EggStatus, GROUP, NODE_LABEL,
    node_label_value, status_patch,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::index::{Assignment, EggKey, ObjectKey, Observed};
use crate::read;

pub use error::WriteError;

/// Field manager of everything that the operator writes.
pub const MANAGER: &str = "l7egg-operator";
/// Label of the EggAssignments that are the operator's.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One request.
#[derive(Clone, Debug)]
pub enum Write {
    /// Create or change an EggAssignment by server-side apply.
    Apply(ObjectKey, Assignment),
    /// Delete an EggAssignment, if it still is the one of this uid.
    Delete(ObjectKey, String),
    /// Write the status of the Egg of this uid.
    Status(EggKey, String, EggStatus),
}

/// What the API server has after a request.
#[derive(Clone, Debug)]
pub enum Written {
    /// The EggAssignment.
    Applied(Box<Observed>),
    /// No such EggAssignment.
    Deleted,
    /// The Egg's resource version and status.
    Status(u64, EggStatus),
    /// No such Egg.
    EggGone,
}

/// Sends one request and waits for the answer.
///
/// # Errors
/// When it is refused, fails, or takes too long. It can then be sent again as it is.
pub async fn write(client: Client, write: Write) -> Result<Written, WriteError> {
    let request = async {
        match write {
            Write::Apply(key, assignment) => apply(client, &key, assignment).await,
            Write::Delete(key, uid) => delete(client, &key, uid).await,
            Write::Status(key, uid, status) => write_status(client, &key, &uid, status).await,
        }
    };
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or(Err(WriteError::Timeout))
}

async fn apply(client: Client, key: &ObjectKey, assignment: Assignment) -> Result<Written, WriteError> {
    let api = assignments(client, key);
    let object = object(key, &assignment);
    let answer = api.patch(&key.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    let mut observed = read::observed(&answer).ok_or(WriteError::Answer)?;
    if observed.assignment.as_ref() != Some(&assignment) {
        // Apply takes away nothing that others added to lists. The right to patch is enough for this, and it only takes
        // away: the fields that were applied stay those of the one that applies.
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let answer = api.patch(&key.name, &params, &whole_spec(&answer, &object)?).await?;
        observed = read::observed(&answer).ok_or(WriteError::Answer)?;
    }
    let observed = Box::new(observed);
    if observed.assignment.as_ref() == Some(&assignment) && observed.labelled {
        Ok(Written::Applied(observed))
    } else {
        Err(WriteError::StoredOtherwise(observed))
    }
}

/// Puts the spec of `object` in the place of the one that is `stored`, if that is still the same: else the API server says
/// that there is a conflict, and all is tried again.
fn whole_spec(stored: &DynamicObject, object: &Value) -> Result<Patch<Value>, kube::Error> {
    let operations = json!([
        {"op": "add", "path": "/metadata/resourceVersion", "value": stored.metadata.resource_version},
        {"op": "add", "path": "/spec", "value": object["spec"]},
    ]);
    Ok(Patch::Json(serde_json::from_value(operations).map_err(kube::Error::SerdeError)?))
}

async fn delete(client: Client, key: &ObjectKey, uid: String) -> Result<Written, WriteError> {
    let only_this = Preconditions { uid: Some(uid), resource_version: None };
    let params = DeleteParams::default().preconditions(only_this);
    match assignments(client, key).delete(&key.name, &params).await {
        Ok(_) => Ok(Written::Deleted),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Deleted),
        Err(error) => Err(error.into()),
    }
}

async fn write_status(
    client: Client,
    key: &EggKey,
    uid: &str,
    status: EggStatus,
) -> Result<Written, WriteError> {
    let resource = match key.kind {
        EggKind::Egg => ApiResource::erase::<Egg>(&()),
        EggKind::ClusterEgg => ApiResource::erase::<ClusterEgg>(&()),
    };
    // Dynamic, because the rest of the object may be what this status complains of.
    let api: Api<DynamicObject> = match &key.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let patch = status_patch(Some(uid), &status).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(&key.name, &params, &patch).await {
        Ok(answer) => {
            let stored = EggStatus::deserialize(&answer.data["status"]).unwrap_or_default();
            Ok(Written::Status(read::resource_version(&answer.metadata), stored))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::EggGone),
        Err(error) => Err(error.into()),
    }
}

/// The EggAssignment as it is sent.
pub fn object(key: &ObjectKey, assignment: &Assignment) -> Value {
    let egg = &assignment.egg;
    let (api_version, kind) = match egg.kind {
        EggKind::Egg => (Egg::api_version(&()), Egg::kind(&())),
        EggKind::ClusterEgg => (ClusterEgg::api_version(&()), ClusterEgg::kind(&())),
    };
    let node = node_label_value(&assignment.node);
    let labels = [(NODE_LABEL, &*node), (MANAGED_BY_LABEL, MANAGER)];
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        owner_references: Some(vec![OwnerReference {
            api_version: api_version.into_owned(),
            kind: kind.into_owned(),
            name: egg.name.clone(),
            uid: egg.uid.clone(),
            controller: Some(true),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    };
    let spec = EggAssignmentSpec {
        node: assignment.node.clone(),
        egg: egg.clone(),
        policy: (*assignment.policy).clone(),
        shares: assignment.shares.clone(),
        host: assignment.host.clone(),
        pods: assignment.pods.clone(),
    };
    json!({
        "apiVersion": format!("{GROUP}/{}", EggAssignment::version(&())),
        "kind": EggAssignment::kind(&()),
        "metadata": metadata,
        "spec": spec,
    })
}

fn assignments(client: Client, key: &ObjectKey) -> Api<DynamicObject> {
    Api::namespaced_with(client, &key.namespace, &ApiResource::erase::<EggAssignment>(&()))
}

#[cfg(test)]
mod tests;
