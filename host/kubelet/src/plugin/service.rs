//! What the kubelet may ask a plugin, and our answers.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, StreamExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::Allocator;
use crate::{
    device::{Choice, Device, DeviceId, ResourceName, shown},
    limits,
    proto::v1beta1::{self as wire, device_plugin_server::DevicePlugin},
};

/// What the calls of one resource share, over all of its sockets.
pub(super) struct Shared {
    pub(super) resource: ResourceName,
    pub(super) devices: watch::Receiver<Arc<[Device]>>,
    pub(super) allocator: Arc<dyn Allocator>,
    /// One permit a question to the agent.
    pub(super) questions: Arc<Semaphore>,
}

/// How many streams of devices are open on one socket.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    open: AtomicUsize,
    pub(super) changed: Notify,
}

impl Watchers {
    pub(super) fn any(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    fn enter(self: &Arc<Self>) -> Option<Watcher> {
        let more = |open| (open < limits::WATCHERS_MAX).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        self.changed.notify_one();
        Some(Watcher(self.clone()))
    }
}

/// An open stream; it is counted until this is dropped.
struct Watcher(Arc<Watchers>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

/// One resource on one socket.
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) watchers: Arc<Watchers>,
    /// Becomes true when the socket is closed.
    pub(super) closing: watch::Receiver<bool>,
}

/// Said of every plugin: it wants to be asked which devices to take, and not before each start.
pub(super) const OPTIONS: wire::DevicePluginOptions =
    wire::DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true };

type Lists = Pin<Box<dyn Stream<Item = Result<wire::ListAndWatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Lists;

    async fn get_device_plugin_options(&self, _: Request<wire::Empty>) -> Result<Response<wire::DevicePluginOptions>, Status> {
        Ok(Response::new(OPTIONS))
    }

    async fn list_and_watch(&self, _: Request<wire::Empty>) -> Result<Response<Lists>, Status> {
        let Some(watcher) = self.watchers.enter() else {
            return Err(Status::resource_exhausted(format!("{} is watched {} times already", self.shared.resource, limits::WATCHERS_MAX)));
        };
        Ok(Response::new(lists(self.shared.devices.clone(), self.closing.clone(), watcher)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<wire::PreferredAllocationRequest>,
    ) -> Result<Response<wire::PreferredAllocationResponse>, Status> {
        let requests = request.into_inner().container_requests;
        few_enough(requests.len())?;
        let choices = requests.into_iter().map(|request| self.shared.choice(&request)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::new();
        for choice in choices {
            let device_i_ds = self.shared.prefer(choice).await.iter().map(ToString::to_string).collect();
            answers.push(wire::ContainerPreferredAllocationResponse { device_i_ds });
        }
        Ok(Response::new(wire::PreferredAllocationResponse { container_responses: answers }))
    }

    async fn allocate(&self, request: Request<wire::AllocateRequest>) -> Result<Response<wire::AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        few_enough(requests.len())?;
        // All are checked before the agent is asked about the first: a refusal leaves nothing half done.
        let wanted = requests.iter().map(|request| self.shared.wanted(&request.devices_ids)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::new();
        for devices in wanted {
            answers.push(self.shared.allocate(devices).await?);
        }
        Ok(Response::new(wire::AllocateResponse { container_responses: answers }))
    }

    async fn pre_start_container(
        &self,
        _: Request<wire::PreStartContainerRequest>,
    ) -> Result<Response<wire::PreStartContainerResponse>, Status> {
        // Nobody asked for this call, and there is nothing to do before a start.
        Ok(Response::new(wire::PreStartContainerResponse {}))
    }
}

/// The present list, and each further one; of lists that follow each other faster than the kubelet reads, the newest. Ends with the socket.
fn lists(devices: watch::Receiver<Arc<[Device]>>, mut closing: watch::Receiver<bool>, watcher: Watcher) -> Lists {
    let list = move |devices: Arc<[Device]>| {
        // Counted for as long as the stream lives.
        let _ = &watcher;
        Ok(wire::ListAndWatchResponse { devices: devices.iter().map(Device::wire).collect() })
    };
    let closed = async move { drop(closing.wait_for(|closing| *closing).await) };
    WatchStream::new(devices).map(list).take_until(closed).boxed()
}

fn few_enough(containers: usize) -> Result<(), Status> {
    if (1..=limits::CONTAINERS_MAX).contains(&containers) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("a call must be about 1 to {} containers, not {containers}", limits::CONTAINERS_MAX)))
}

/// Ids that differ.
fn ids(texts: &[String]) -> Result<BTreeSet<DeviceId>, Status> {
    if texts.len() > limits::DEVICES_MAX {
        return Err(Status::invalid_argument(format!("{} devices in one call, {} are the most", texts.len(), limits::DEVICES_MAX)));
    }
    let mut ids = BTreeSet::new();
    for text in texts {
        let id = DeviceId::new(text).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !ids.insert(id) {
            return Err(Status::invalid_argument(format!("the device {} was named twice", shown(text))));
        }
    }
    Ok(ids)
}

impl Shared {
    /// Whether the device may be given away: none if we have no such device.
    fn health(&self, id: &DeviceId) -> Option<bool> {
        self.devices.borrow().iter().find(|device| device.id == *id).map(|device| device.healthy)
    }

    /// The devices of a call to `Allocate`, if they may be given away.
    fn wanted(&self, texts: &[String]) -> Result<Vec<DeviceId>, Status> {
        let ids = ids(texts)?;
        let resource = &self.resource;
        if ids.is_empty() {
            return Err(Status::invalid_argument(format!("no device of {resource} was named")));
        }
        for id in &ids {
            match self.health(id) {
                Some(true) => {}
                Some(false) => {
                    return Err(Status::failed_precondition(format!(
                        "device {id} of {resource} is unhealthy: the pod's owner has to make another pod, which gets another device"
                    )));
                }
                None => {
                    return Err(Status::not_found(format!(
                        "device {id} of {resource} does not exist (any more): the pod's owner has to make another pod, which gets another device"
                    )));
                }
            }
        }
        Ok(ids.into_iter().collect())
    }

    fn choice(&self, request: &wire::ContainerPreferredAllocationRequest) -> Result<Choice, Status> {
        let (available, required) = (ids(&request.available_device_i_ds)?, ids(&request.must_include_device_i_ds)?);
        if let Some(id) = required.difference(&available).next() {
            return Err(Status::invalid_argument(format!("device {id} of {} must be chosen but is not available", self.resource)));
        }
        let size = usize::try_from(request.allocation_size).unwrap_or(0);
        if size == 0 || size < required.len() || size > available.len() {
            return Err(Status::invalid_argument(format!(
                "{} of {} devices of {} cannot be chosen with {} chosen already",
                request.allocation_size,
                available.len(),
                self.resource,
                required.len()
            )));
        }
        Ok(Choice { available: available.into_iter().collect(), required: required.into_iter().collect(), size })
    }

    /// What is required and what the agent likes best of the rest, at most `choice.size`. The kubelet takes what it likes where that is too
    /// few, which is better for the pod than a refusal.
    async fn prefer(self: &Arc<Self>, choice: Choice) -> Vec<DeviceId> {
        let (shared, asked) = (self.clone(), choice.clone());
        let preferred = match self.ask(move || shared.allocator.prefer(&shared.resource, &asked)).await {
            Ok(preferred) => preferred,
            Err(status) => {
                tracing::warn!(resource = %self.resource, message = status.message(), "no preference for the kubelet");
                Vec::new()
            }
        };
        let available: BTreeSet<&DeviceId> = choice.available.iter().collect();
        let stranger = preferred.iter().find(|id| !available.contains(id));
        if let Some(id) = stranger {
            tracing::error!(resource = %self.resource, device = %id, "a preference for a device that is not available counts as none");
            return choice.required;
        }
        let mut chosen = choice.required;
        for id in preferred {
            if chosen.len() < choice.size && !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        chosen
    }

    async fn allocate(self: &Arc<Self>, devices: Vec<DeviceId>) -> Result<wire::ContainerAllocateResponse, Status> {
        let named = devices.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(", ");
        let shared = self.clone();
        let answer = self.ask(move || shared.allocator.allocate(&shared.resource, &devices)).await?;
        let refused = |why: &dyn std::fmt::Display| format!("{named} of {} cannot be given to a container: {why}", self.resource);
        let allocation = answer.map_err(|why| Status::failed_precondition(readable(&refused(&why))))?;
        allocation.wire().map_err(|error| Status::internal(refused(&error)))
    }

    /// Asks the agent on a thread that may block.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let resource = &self.resource;
        let answer = async {
            // The permit stays with the question: one that hangs is counted for as long as it does.
            let permit = self.questions.clone().acquire_owned().await;
            let asked = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                question()
            });
            asked.await.map_err(|_| Status::internal(format!("the node agent failed over {resource}; its log says more")))
        };
        let late = || {
            let seconds = limits::ANSWER_WITHIN.as_secs();
            Status::deadline_exceeded(format!("the node agent did not answer for {resource} within {seconds} s; its log says more"))
        };
        tokio::time::timeout(limits::ANSWER_WITHIN, answer).await.map_err(|_| late())?
    }
}

/// As much as a person reads. A status travels in a header, and ends in the pod's status.
fn readable(text: &str) -> String {
    const MESSAGE_MAX: usize = 1024;
    text.chars().take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use super::*;
    use crate::Allocation;

    /// An agent that answers when it is let.
    struct Slow(Mutex<mpsc::Receiver<()>>);

    impl Allocator for Slow {
        fn prefer(&self, _: &ResourceName, choice: &Choice) -> Vec<DeviceId> {
            let _ = self.0.lock().unwrap().recv();
            choice.available.clone()
        }

        fn allocate(&self, _: &ResourceName, _: &[DeviceId]) -> Result<Allocation, String> {
            let _ = self.0.lock().unwrap().recv();
            Ok(Allocation::default())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_hangs_does_not_hang_the_kubelet() {
        let (go, gate) = mpsc::channel();
        let id = DeviceId::new("MIG-a").unwrap();
        // The sender may go: the last list stays.
        let devices = watch::channel(vec![Device::new(id.clone())].into()).1;
        let shared = Arc::new(Shared {
            resource: ResourceName::new("nvidia.com/gpu").unwrap(),
            devices,
            allocator: Arc::new(Slow(Mutex::new(gate))),
            questions: Arc::new(Semaphore::new(limits::QUESTIONS_AT_ONCE)),
        });
        let mut asked = Vec::new();
        for _ in 0..=limits::QUESTIONS_AT_ONCE {
            let (shared, id) = (shared.clone(), id.clone());
            asked.push(tokio::spawn(async move { shared.allocate(vec![id]).await }));
        }
        let choice = Choice { available: vec![id.clone()], required: Vec::new(), size: 1 };
        let (other, preferred) = (shared.clone(), choice.clone());
        let preferred = tokio::spawn(async move { other.prefer(preferred).await });
        // Everybody begins to wait before time goes on.
        tokio::task::yield_now().await;
        tokio::time::advance(limits::ANSWER_WITHIN + Duration::from_secs(1)).await;
        for asked in asked {
            let late = asked.await.unwrap().unwrap_err();
            assert!(late.message().contains("the node agent did not answer for nvidia.com/gpu within 20 s"), "{late}");
        }
        assert_eq!(preferred.await.unwrap(), Vec::new(), "the kubelet chooses by itself");
        assert_eq!(shared.questions.available_permits(), 0, "what hangs is counted");
        // It comes to itself, and everything is as before.
        drop(go);
        assert!(shared.allocate(vec![id.clone()]).await.is_ok());
        assert_eq!(shared.prefer(choice).await, [id]);
    }
}
