//! Kubernetes objects with only what scheduling needs of them.
//!
//! A pod in full costs several times as much to decode as the parts that decide where it runs (see [`measure`]), and every pod of the
//! cluster passes here. So the kinds below know few fields and skip the rest, `managedFields` above all. `kube::Api` and
//! `kube::runtime::watcher` take them like any typed object.
//!
//! One object that cannot be read must not end the watch of all others: `spec` and `status` are decoded apart, each a [`Part`] that says why
//! if it is not what it should be, and has what of it can be read. Quantities stay text until they are translated.

mod cluster;
mod custom;
pub mod measure;
mod pod;
mod storage;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

pub use cluster::{Budget, BudgetSpec, BudgetStatus, Namespace, Node, NodeInfo, NodeStatus};
pub use custom::{CompositeQuota, GpuNode, PolicyObject, Quota, SelectionObject};
pub use pod::{Condition, Container, ContainerStatus, Pod, PodInfo, PodStatus, Port, Resources, Running, Volume};
pub use storage::{
    Claim, ClaimInfo, ClaimStatus, Driver, DriverLimit, NodeDrivers, NodeDriversInfo, PersistentVolume, StorageClass, VolumeInfo,
    VolumeStatus,
};

/// Amounts of resources as written.
pub type Amounts = BTreeMap<String, String>;

/// A part of an object that decodes by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part<T> {
    /// What it says; the default where it is missing. If it cannot be read, those of its fields that can: whose a pod is and where it runs is
    /// known all the same.
    pub value: T,
    /// Why it cannot be read.
    pub error: Option<String>,
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(match serde_json::from_str::<Option<T>>(raw.get()) {
            Ok(value) => Self { value: value.unwrap_or_default(), error: None },
            Err(error) => Self { value: readable(raw.get()).unwrap_or_default(), error: Some(error.to_string()) },
        })
    }
}

/// An object with those of its fields that can be read by themselves.
fn readable<T: DeserializeOwned>(text: &str) -> Option<T> {
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    fields.retain(|name, value| {
        let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<T>(alone.into()).is_ok()
    });
    serde_json::from_value(fields.into()).ok()
}

/// A kind of object: which of its fields are known.
pub trait Kind: Clone + fmt::Debug + Default + PartialEq + Send + Sync + 'static {
    /// The typed object of this kind, for its name in the API.
    type Typed: Resource<DynamicType = ()>;
    /// What is known of its `spec`.
    type Spec: DeserializeOwned + Clone + fmt::Debug + Default + PartialEq + Send + Sync + 'static;
    /// What is known of its `status`.
    type Status: DeserializeOwned + Clone + fmt::Debug + Default + PartialEq + Send + Sync + 'static;
}

/// An object of some kind, with only what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(bound = "")]
pub struct Lean<K: Kind> {
    /// Name, namespace, uid, version, labels, annotations, owners, times; nothing else.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// Its `spec`.
    #[serde(default)]
    pub spec: Part<K::Spec>,
    /// Its `status`.
    #[serde(default)]
    pub status: Part<K::Status>,
}

impl<K: Kind> Lean<K> {
    /// What of it could not be read.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let spec = self.spec.error.as_ref().map(|error| format!("its spec cannot be read: {error}"));
        spec.or_else(|| self.status.error.as_ref().map(|error| format!("its status cannot be read: {error}")))
    }
}

/// Makes a type with a field `metadata` one that `kube` can list and watch, under the name that another type has.
macro_rules! resource {
    ([$($generics:tt)*] $lean:ty, $typed:ty) => {
        impl<$($generics)*> Resource for $lean {
            type DynamicType = ();
            type Scope = <$typed as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$typed as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$typed as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$typed as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$typed as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use resource;

resource!([K: Kind] Lean<K>, K::Typed);

/// The part of an object's metadata that is kept.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

/// Left by `kubectl apply`: a second copy of the object, as large as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut kept = Metadata::deserialize(deserializer)?;
    if let Some(annotations) = &mut kept.annotations {
        annotations.remove(LAST_APPLIED);
    }
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        uid: kept.uid,
        resource_version: kept.resource_version,
        generation: kept.generation,
        labels: kept.labels,
        annotations: kept.annotations,
        owner_references: kept.owner_references,
        creation_timestamp: kept.creation_timestamp,
        deletion_timestamp: kept.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `namespace/name`, or the name alone of what has no namespace.
#[must_use]
pub fn full_name(meta: &ObjectMeta) -> String {
    let name = meta.name.as_deref().unwrap_or_default();
    meta.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_that_is_nonsense_leaves_the_rest_readable() {
        let text = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                         "managedFields": [{"manager": "m", "fieldsV1": {"f:x": {}}}], "annotations": {LAST_APPLIED: "{}", "kept": "yes"}},
            "spec": {"containers": "none", "nodeName": "a", "schedulerName": "partita", "priority": 7},
            "status": {"phase": "Pending", "conditions": []},
        });
        let pod: Pod = serde_json::from_str(&text.to_string()).unwrap();
        assert_eq!((full_name(&pod.metadata).as_str(), pod.status.value.phase.as_str()), ("n/p", "Pending"));
        assert!(pod.error().unwrap().contains("its spec cannot be read: invalid type: string \"none\""), "{:?}", pod.error());
        let spec = &pod.spec.value;
        assert_eq!((spec.node_name.as_str(), spec.scheduler_name.as_str(), spec.priority), ("a", "partita", Some(7)));
        assert_eq!(pod.metadata.annotations, Some([("kept".to_owned(), "yes".to_owned())].into()));
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!(pod, serde_json::from_value(text).unwrap());
        let absent: Pod = serde_json::from_str(r#"{"metadata": {"name": "p"}, "status": null}"#).unwrap();
        assert_eq!((absent.error(), absent.status), (None, Part::default()));
    }

    #[test]
    fn kinds_have_the_api_names_of_their_typed_objects() {
        assert_eq!(Pod::url_path(&(), Some("n")), "/api/v1/namespaces/n/pods");
        assert_eq!(Node::url_path(&(), None), "/api/v1/nodes");
        assert_eq!(Budget::url_path(&(), None), "/apis/policy/v1/poddisruptionbudgets");
        assert_eq!(StorageClass::url_path(&(), None), "/apis/storage.k8s.io/v1/storageclasses");
        assert_eq!(GpuNode::url_path(&(), None), "/apis/partita.dev/v1alpha1/gpunodes");
    }

    #[test]
    fn events_of_a_watch_decode_without_a_copy_of_the_object() {
        // A raw part needs the text itself: it must not have been taken apart before, which depends on how `kube` decodes.
        let line = r#"{"type": "ADDED", "object": {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}}"#;
        let kube::core::WatchEvent::Added(pod) = serde_json::from_str::<kube::core::WatchEvent<Pod>>(line).unwrap() else { panic!() };
        assert_eq!(pod.spec.value.node_name, "n");
        let list = r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{"metadata": {"name": "p"}, "spec": 7}]}"#;
        let list: kube::core::ObjectList<Pod> = serde_json::from_str(list).unwrap();
        assert!(list.items[0].error().is_some());
    }
}
