//! Volumes and what is claimed of them.

use k8s_openapi::{
    api::{
        core::v1::{NodeSelector, PersistentVolume as TypedVolume, PersistentVolumeClaim, TopologySelectorTerm},
        storage::v1::{CSINode, StorageClass as TypedClass},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::Resource;
use serde::Deserialize;
use std::borrow::Cow;

use super::{Amounts, Kind, Lean, Resources, cluster::Nothing, metadata, null_is_none, resource};

/// A claim on a volume.
pub type Claim = Lean<ClaimKind>;
/// A volume.
pub type PersistentVolume = Lean<VolumeKind>;
/// What the storage drivers of a node say of it.
pub type NodeDrivers = Lean<DriversKind>;

/// Which fields of a claim are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimKind;

impl Kind for ClaimKind {
    type Typed = PersistentVolumeClaim;
    type Spec = ClaimInfo;
    type Status = ClaimStatus;
}

/// What is known of a claim's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct ClaimInfo {
    pub access_modes: Vec<String>,
    pub resources: Resources,
    pub selector: Option<LabelSelector>,
    pub storage_class_name: Option<String>,
    pub volume_attributes_class_name: Option<String>,
    pub volume_mode: Option<String>,
    pub volume_name: String,
}

/// What is known of a claim's `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
}

/// Which fields of a volume are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeKind;

impl Kind for VolumeKind {
    type Typed = TypedVolume;
    type Spec = VolumeInfo;
    type Status = VolumeStatus;
}

/// What is known of a volume's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own words")]
pub struct VolumeInfo {
    pub access_modes: Vec<String>,
    pub capacity: Amounts,
    pub claim_ref: Option<ClaimRef>,
    pub csi: Option<CsiSource>,
    pub node_affinity: Option<VolumeAffinity>,
    pub storage_class_name: String,
    pub volume_attributes_class_name: Option<String>,
    pub volume_mode: Option<String>,
}

/// The claim that has a volume, or is to have it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own words")]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The driver of a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiSource {
    /// Its name.
    pub driver: String,
}

/// From where a volume can be reached.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeAffinity {
    /// The nodes; from everywhere if it is missing.
    pub required: Option<NodeSelector>,
}

/// What is known of a volume's `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    /// `Available`, `Bound`, `Released` or `Failed`.
    pub phase: String,
}

/// Which fields of a node's storage drivers are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriversKind;

impl Kind for DriversKind {
    type Typed = CSINode;
    type Spec = NodeDriversInfo;
    type Status = Nothing;
}

/// What is known of the `spec` of a node's storage drivers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeDriversInfo {
    /// The drivers that run there; the API server writes none as `null`.
    #[serde(deserialize_with = "null_is_none")]
    pub drivers: Vec<Driver>,
}

/// A storage driver on a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// How many volumes it can attach there.
    pub allocatable: DriverLimit,
}

/// How many volumes a driver can attach to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DriverLimit {
    /// None if there is no limit.
    pub count: Option<u32>,
}

/// A storage class.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageClass {
    /// Name and version.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// Who makes its volumes.
    #[serde(default)]
    pub provisioner: String,
    /// `Immediate`, or `WaitForFirstConsumer`.
    #[serde(default)]
    pub volume_binding_mode: Option<String>,
    /// Where its volumes can be made; anywhere if empty.
    #[serde(default)]
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}

resource!([] StorageClass, TypedClass);
