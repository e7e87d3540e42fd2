//! Pods get devices, and who asks is told.

use std::{collections::BTreeMap, sync::Arc};

use partita_kubelet::proto::{
    v1::{
        AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources, GetPodResourcesRequest,
        GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
        pod_resources_lister_server::PodResourcesLister,
    },
    v1beta1::{AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, PreferredAllocationRequest},
};
use tonic::{Request, Response, Status};

use crate::{
    Shared,
    books::{Admitted, Pod, Refused},
    lock,
};

/// Takes free devices for `pod`, the preferred ones first, has them allocated, and books them.
pub(crate) async fn admit(shared: Arc<Shared>, pod: Pod) -> Result<Admitted, Refused> {
    let resource = &pod.resource;
    let (free, plugin) = {
        let books = lock(&shared.books);
        if !books.devices.contains_key(resource) {
            return Err(Refused(format!("cannot allocate unregistered device {resource}")));
        }
        (books.free(resource), books.plugin(resource))
    };
    if free.len() < pod.count {
        let (wanted, available) = (pod.count, free.len());
        return Err(Refused(format!(
            "requested number of devices unavailable for {resource}. Requested: {wanted}, Available: {available}"
        )));
    }
    let Some(mut plugin) = plugin else { return Err(Refused(format!("unknown Device Plugin {resource}"))) };
    let mut devices = Vec::new();
    if free.len() > pod.count {
        let request = ContainerPreferredAllocationRequest {
            available_device_i_ds: free.clone(),
            must_include_device_i_ds: Vec::new(),
            allocation_size: i32::try_from(pod.count).unwrap_or(i32::MAX),
        };
        let answer = plugin.get_preferred_allocation(PreferredAllocationRequest { container_requests: vec![request] }).await;
        let answer = answer.map_err(|status| Refused(format!("device plugin GetPreferredAllocation rpc failed with err: {status}")))?;
        let preferred = answer.into_inner().container_responses.into_iter().flat_map(|answer| answer.device_i_ds);
        devices.extend(preferred.filter(|id| free.contains(id)));
    }
    for id in free {
        if !devices.contains(&id) {
            devices.push(id);
        }
    }
    devices.truncate(pod.count);
    devices.sort();
    let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: devices.clone() }] };
    lock(&shared.books).allocating += 1;
    let answer = plugin.allocate(request).await;
    let mut books = lock(&shared.books);
    books.allocating = books.allocating.saturating_sub(1);
    let answer = answer.map_err(|status| Refused(status.message().to_owned()))?;
    let Some(answer) = answer.into_inner().container_responses.into_iter().next() else {
        return Err(Refused("no containers return in allocation response".to_owned()));
    };
    books.pods.push((pod.clone(), devices.iter().cloned().collect()));
    books.write(&shared.folder);
    Ok(Admitted { devices, answer })
}

pub(crate) struct Service(pub(crate) Arc<Shared>);

impl Service {
    /// Waits and refuses as told.
    async fn faults(&self) -> Result<(), Status> {
        let faults = lock(&self.0.faults).clone();
        tokio::time::sleep(faults.delay).await;
        faults.refuse_pod_resources.map_or(Ok(()), |words| Err(Status::resource_exhausted(words)))
    }

    fn pods(&self) -> BTreeMap<(String, String), PodResources> {
        let mut pods: BTreeMap<_, PodResources> = BTreeMap::new();
        for (pod, devices) in &lock(&self.0.books).pods {
            let known = pods.entry((pod.namespace.clone(), pod.name.clone())).or_insert_with(|| PodResources {
                name: pod.name.clone(),
                namespace: pod.namespace.clone(),
                containers: Vec::new(),
            });
            let devices = ContainerDevices { resource_name: pod.resource.clone(), device_ids: devices.iter().cloned().collect() };
            known.containers.push(ContainerResources { name: pod.container.clone(), devices: vec![devices] });
        }
        pods
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Service {
    async fn list(&self, _: Request<ListPodResourcesRequest>) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.faults().await?;
        let (invented, nobody) = {
            let faults = lock(&self.0.faults);
            (faults.invented_pods, faults.names_no_pods)
        };
        if nobody {
            return Ok(Response::new(ListPodResourcesResponse::default()));
        }
        let invent = |number| PodResources { name: format!("{number:01000}"), ..PodResources::default() };
        let pod_resources = self.pods().into_values().chain((0..invented).map(invent)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        self.faults().await?;
        let books = lock(&self.0.books);
        // One entry a device, as the kubelet does for devices whose place in the machine is known.
        let healthy = books.devices.iter().flat_map(|(resource, devices)| {
            let healthy = devices.iter().filter(|(_, healthy)| **healthy);
            healthy.map(|(id, _)| ContainerDevices { resource_name: resource.clone(), device_ids: vec![id.clone()] })
        });
        Ok(Response::new(AllocatableResourcesResponse { devices: healthy.collect() }))
    }

    async fn get(&self, request: Request<GetPodResourcesRequest>) -> Result<Response<GetPodResourcesResponse>, Status> {
        self.faults().await?;
        let GetPodResourcesRequest { pod_name: name, pod_namespace: namespace } = request.into_inner();
        let unknown = || Status::unknown(format!("pod {name} in namespace {namespace} not found"));
        let pod = self.pods().remove(&(namespace.clone(), name.clone())).ok_or_else(unknown)?;
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(pod) }))
    }
}
