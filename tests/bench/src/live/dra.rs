//! kube-scheduler's own way to GPUs: dynamic resource allocation (DRA), with partitions as devices that share counters (KEP-4815).
//!
//! It is the one path of plain Kubernetes that knows slots. What a driver would publish is published here, as NVIDIA's does: for each GPU
//! every profile at every start, each of which consumes its memory slots and compute slices. Claims are there before the first pod
//! is, so that only scheduling is measured; nobody prepares a device, which a node's agent makes before ours binds.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::{Api, Client, api::PostParams};
use partita_core::model::{Grid, catalog};
use serde_json::{Value, json};

/// The driver's name.
const DRIVER: &str = "gpu.example.com";
/// The class of devices that are whole GPUs, and the extended resource that stands for one (KEP-5004).
const WHOLE: (&str, &str) = ("whole.example.com", "example.com/gpu");
/// The class of all partitions.
const PARTITION: &str = "mig.example.com";
/// Requests at once.
const AT_ONCE: usize = 32;

/// Publishes `gpus` whole GPUs on each node, which pods ask for as an extended resource; returns what they ask.
pub(super) async fn whole(client: &Client, nodes: &[String], gpus: usize) -> Result<Value> {
    class(client, WHOLE.0, json!({ "extendedResourceName": WHOLE.1 })).await?;
    let slices = nodes.iter().map(|node| {
        let devices: Vec<Value> = (0..gpus).map(|gpu| json!({ "name": format!("gpu-{gpu}"), "attributes": kind("gpu") })).collect();
        slice(node, "gpus", 1, json!({ "devices": devices }))
    });
    publish(client, slices.collect()).await?;
    Ok(json!({ "requests": { "cpu": "100m", WHOLE.1: "1" }, "limits": { WHOLE.1: "1" } }))
}

/// Publishes `gpus` H100 on each node, cut in every way.
pub(super) async fn partitions(client: &Client, nodes: &[String], gpus: usize) -> Result<()> {
    class(client, PARTITION, json!({})).await?;
    let grid = catalog::builtin("H100-80GB").and_then(|model| model.grid).context("the catalog has no H100-80GB")?;
    let mut slices = Vec::new();
    for node in nodes {
        let sets: Vec<Value> =
            (0..gpus).map(|gpu| json!({ "name": set(gpu), "counters": counters(&grid, 0, grid.slots, grid.compute) })).collect();
        slices.push(slice(node, "counters", gpus + 1, json!({ "sharedCounters": sets })));
        for gpu in 0..gpus {
            slices.push(slice(node, &set(gpu), gpus + 1, json!({ "devices": devices(&grid, gpu) })));
        }
    }
    publish(client, slices).await
}

/// A claim for one partition of a profile.
pub(super) async fn claim(client: &Client, namespace: &str, name: &str, profile: &str) -> Result<()> {
    let selector = format!("device.attributes['{DRIVER}'].kind == '{profile}'");
    let exactly = json!({ "deviceClassName": PARTITION, "selectors": [{ "cel": { "expression": selector } }] });
    let claim: ResourceClaim = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "devices": { "requests": [{ "name": "partition", "exactly": exactly }] } },
    }))?;
    let claims: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
    claims.create(&PostParams::default(), &claim).await.with_context(|| format!("the claim {name} could not be created"))?;
    Ok(())
}

async fn class(client: &Client, name: &str, mut spec: Value) -> Result<()> {
    spec["selectors"] = json!([{ "cel": { "expression": format!("device.driver == '{DRIVER}'") } }]);
    let class: DeviceClass = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &class)
        .await
        .with_context(|| format!("the class {name} could not be created"))?;
    Ok(())
}

async fn publish(client: &Client, slices: Vec<Value>) -> Result<()> {
    let api: Api<ResourceSlice> = Api::all(client.clone());
    let create = |slice: Value| {
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &serde_json::from_value(slice)?).await.map(drop).context("a slice could not be created")
        }
    };
    stream::iter(slices).map(create).buffer_unordered(AT_ONCE).try_collect().await
}

/// One of the `of` slices of a node's pool.
fn slice(node: &str, name: &str, of: usize, content: Value) -> Value {
    let mut spec = json!({ "driver": DRIVER, "nodeName": node, "pool": { "name": node, "generation": 1, "resourceSliceCount": of } });
    if let (Value::Object(spec), Value::Object(content)) = (&mut spec, content) {
        spec.extend(content);
    }
    json!({ "metadata": { "name": format!("{node}-{name}") }, "spec": spec })
}

fn set(gpu: usize) -> String {
    format!("gpu-{gpu}")
}

fn kind(name: &str) -> Value {
    json!({ "kind": { "string": name } })
}

/// So many memory slots from `start`, and compute slices.
fn counters(grid: &Grid, start: u8, size: u8, compute: u8) -> Value {
    let mut counters = json!({ "compute": { "value": compute.to_string() } });
    for slot in start..(start + size).min(grid.slots) {
        counters[format!("slot-{slot}")] = json!({ "value": "1" });
    }
    counters
}

/// Every partition that a GPU can have.
fn devices(grid: &Grid, gpu: usize) -> Vec<Value> {
    let places = grid.profiles.iter().flat_map(|profile| profile.starts.iter().map(move |&start| (profile, start)));
    let device = |(profile, start): (&partita_core::model::Profile, u8)| {
        let name = format!("gpu-{gpu}-{}-{start}", profile.name.replace(['.', '+'], "-"));
        let consumes = json!([{ "counterSet": set(gpu), "counters": counters(grid, start, profile.size, profile.compute) }]);
        json!({ "name": name, "attributes": kind(&profile.name), "consumesCounters": consumes })
    };
    places.map(device).collect()
}
