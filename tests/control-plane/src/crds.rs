//! partita's own kinds of object in a cluster.

use std::{future::Future, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};

use crate::error::{Doing, Error};

/// Our name as a writer of fields.
const MANAGER: &str = "partita-cluster";
/// How often readiness is asked about.
const ASKED_EVERY: Duration = Duration::from_millis(20);
/// How often at most: a minute.
const ASKED_MAX: u32 = 3_000;

/// Installs the definitions of partita's kinds, and returns when objects of each can be listed.
///
/// # Errors
/// When the API server refuses one, or does not serve it within a minute.
pub async fn install_crds(client: &Client) -> Result<(), Error> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = partita_kube::crd::all();
    for definition in &all {
        let name = definition.name_any();
        let applied = definitions.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(definition)).await;
        applied.doing(|| format!("could not install {name}"))?;
    }
    for definition in &all {
        let names = &definition.spec.names;
        let version = definition.spec.versions.first().map(|version| version.name.clone()).unwrap_or_default();
        let kind = GroupVersionKind::gvk(&definition.spec.group, &version, &names.kind);
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, &names.plural));
        let few = ListParams::default().limit(1);
        served(async || objects.list(&few).await.map(drop)).await.doing(|| format!("{} is not served", definition.name_any()))?;
    }
    Ok(())
}

/// Asks until it is answered.
async fn served<F: Future<Output = kube::Result<()>>>(ask: impl Fn() -> F) -> kube::Result<()> {
    let mut asked = 1;
    loop {
        match ask().await {
            Err(kube::Error::Api(status)) if status.code == 404 && asked < ASKED_MAX => asked += 1,
            other => return other,
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
}
