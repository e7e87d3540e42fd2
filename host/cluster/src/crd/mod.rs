//! partita's own kinds of object, group `partita.dev/v1alpha1`.
//!
//! What the API server can refuse by itself, it does: bounds in the schema, relations between fields and between old and new in CEL.
//! `deploy/crds` holds what [`all`] returns; a test keeps the two equal.

mod amount;
mod convert;
#[allow(unreachable_pub, clippy::duplicated_attributes, reason = "the derive of the schema makes public items, and takes lists of rules")]
mod gpu_node;
#[allow(unreachable_pub, clippy::duplicated_attributes, reason = "the derive of the schema makes public items, and takes lists of rules")]
mod policy;
#[allow(unreachable_pub, clippy::duplicated_attributes, reason = "the derive of the schema makes public items, and takes lists of rules")]
mod quota;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

pub use amount::{Amount, AmountList};
pub use convert::{ConvertError, Tenant, desired, found_of, gpu_spec, gpus_of, is_pod, model_of};
pub use gpu_node::{
    DesiredGpu, DesiredPartition, FoundGpu, FoundPartition, GpuNode, GpuNodeSpec, GpuNodeStatus, INDEX_MAX, NUMBER_MAX, PartitionState,
    PodRef,
};
pub use policy::{
    Canary, FailureSpec, Limits, Mode, ModulePart, ModuleRef, ModuleSource, Policy, PolicyKind, PolicyModule, PolicyModuleSpec,
    PolicyModuleStatus, PolicySelection, PolicySelectionSpec, PolicySelectionStatus, PolicySpec, PolicyStatus, Stage,
};
pub use quota::{CompositeElasticQuota, CompositeElasticQuotaSpec, ElasticQuota, ElasticQuotaSpec, QuotaStatus};

/// The group of all of them.
pub const GROUP: &str = "partita.dev";

/// Every definition, in the order of their names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all =
        vec![CompositeElasticQuota::crd(), ElasticQuota::crd(), GpuNode::crd(), Policy::crd(), PolicyModule::crd(), PolicySelection::crd()];
    for definition in &mut all {
        for version in &mut definition.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                drop_formats(schema);
            }
        }
    }
    all
}

/// Takes out the formats of unsigned numbers, which the API server does not know and warns of; their bounds stay.
fn drop_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_ref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        drop_formats(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        drop_formats(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        drop_formats(value);
    }
}

/// Conditions: a list with one entry for each type.
pub(crate) type Conditions = Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>;

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_definitions_in_deploy_are_these() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
        let mut names = Vec::new();
        for definition in all() {
            let name = format!("{}.yaml", definition.spec.names.plural);
            let yaml =
                format!("# Made from host/cluster/src/crd by `UPDATE=1 cargo test -p partita-kube definitions`.\n{}", yaml(&definition));
            let path = folder.join(&name);
            if env::var_os("UPDATE").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &yaml).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == yaml, "{} is not what the code says; run UPDATE=1 cargo test -p partita-kube definitions", path.display());
            names.push(name);
        }
        let mut there: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        there.sort_unstable();
        names.sort_unstable();
        assert_eq!(there, names, "a file in deploy/crds belongs to no kind");
    }

    fn yaml(definition: &CustomResourceDefinition) -> String {
        // By way of JSON values, whose keys are sorted.
        serde_saphyr::to_string(&serde_json::to_value(definition).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_has_a_status_columns_and_a_category() {
        for definition in all() {
            let version = &definition.spec.versions[0];
            let name = &definition.spec.names.plural;
            assert!(version.subresources.as_ref().is_some_and(|sub| sub.status.is_some()), "{name}");
            assert!(version.additional_printer_columns.as_ref().is_some_and(|columns| columns.len() >= 2), "{name}");
            assert_eq!(definition.spec.names.categories, Some(vec!["partita".to_owned()]), "{name}");
            assert!(definition.spec.names.short_names.is_some(), "{name}");
            assert!(!yaml(&definition).contains("format: uint"), "{name}");
        }
    }
}
