//! Which pods use which devices, and which devices the kubelet holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    connect::connect,
    error::Error,
    limits,
    proto::v1::{self as wire, pod_resources_lister_client::PodResourcesListerClient},
};

/// One device in the hands of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The resource, as it was registered.
    pub resource: String,
    /// The device's id.
    pub device: String,
}

/// The kubelet's word on pods and devices. Each question is a connection of its own, so a kubelet that was restarted is no matter.
///
/// The kubelet answers up to a hundred questions a second, ten at once; it refuses more.
#[derive(Clone, Debug)]
pub struct PodResources {
    socket: PathBuf,
}

impl PodResources {
    /// Asks at `socket`, usually [`crate::POD_RESOURCES_SOCKET`].
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Every device that a container of a pod on this node uses, in order, each once. A pod that has ended, but is not deleted yet, has none.
    ///
    /// Init containers that are not sidecars are missing: the kubelet does not list them.
    ///
    /// # Errors
    /// When the kubelet does not answer. Nothing is known of users then, which is not the same as that there are none.
    pub async fn users(&self) -> Result<Vec<Use>, Error> {
        let asked = "the list of pods";
        let answer = self.ask(asked, async |client| client.list(wire::ListPodResourcesRequest {}).await).await?;
        Ok(answer.pod_resources.into_iter().flat_map(uses).collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The devices that one pod uses; none if the kubelet does not know the pod.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn users_in(&self, namespace: &str, pod: &str) -> Result<Option<Vec<Use>>, Error> {
        let request = wire::GetPodResourcesRequest { pod_name: pod.to_owned(), pod_namespace: namespace.to_owned() };
        match self.ask("a pod", async |client| client.get(request).await).await {
            Ok(answer) => Ok(answer.pod_resources.map(|pod| uses(pod).into_iter().collect::<BTreeSet<_>>().into_iter().collect())),
            Err(Error::Refused { status, .. }) if is_unknown_pod(&status) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The healthy devices that the kubelet holds, whether they are used or not, of each resource that has one. A device is here as soon as
    /// pods can be given it.
    ///
    /// # Errors
    /// When the kubelet does not answer.
    pub async fn allocatable(&self) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let asked = "the list of devices";
        let answer = self.ask(asked, async |client| client.get_allocatable_resources(wire::AllocatableResourcesRequest {}).await).await?;
        let mut devices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        // One entry a resource and a memory node of the machine.
        for entry in answer.devices {
            devices.entry(entry.resource_name).or_default().extend(entry.device_ids);
        }
        Ok(devices)
    }

    async fn ask<T>(
        &self,
        asked: &'static str,
        call: impl AsyncFnOnce(&mut PodResourcesListerClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let answer = async {
            let channel = connect(&self.socket).await?;
            let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(limits::POD_RESOURCES_BYTES_MAX);
            let refused = |status| Error::Refused { socket: self.socket.clone(), asked, status: Box::new(status) };
            call(&mut client).await.map(Response::into_inner).map_err(refused)
        };
        let within = limits::POD_RESOURCES_WITHIN;
        timeout(within, answer).await.map_err(|_| Error::Slow { socket: self.socket.clone(), asked, within })?
    }
}

/// The kubelet says so in words only: its error has no code.
fn is_unknown_pod(status: &Status) -> bool {
    status.code() == Code::NotFound || status.code() == Code::Unknown && status.message().ends_with("not found")
}

fn uses(pod: wire::PodResources) -> Vec<Use> {
    let mut uses = Vec::new();
    for container in pod.containers {
        for devices in container.devices {
            for device in devices.device_ids {
                uses.push(Use {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                    resource: devices.resource_name.clone(),
                    device,
                });
            }
        }
    }
    uses
}
