//! What the kubelet asks when it gives a device to a container.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use partita_device::mps;
use partita_kubelet::{Allocation, Allocator, Choice, DeviceId, Mount, ResourceName};
use tokio::sync::Notify;

use crate::{
    cdi,
    offers::{Offer, Offers, What},
    users::{Given, OF},
};

/// By NVIDIA's older way, which its container runtime reads; `void` where devices come by CDI.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// Where a container finds the daemon of MPS.
const PIPE: &str = "/run/partita/mps";

/// Answers for what is offered at the moment.
#[derive(Debug)]
pub struct Answers {
    offers: Mutex<Arc<Offers>>,
    given: Given,
    /// Wakes whoever tells who uses what.
    gave: Arc<Notify>,
    /// Whether container runtimes find the devices in CDI files.
    cdi: bool,
}

impl Answers {
    /// Nothing is offered yet.
    #[must_use]
    pub fn new(cdi: bool) -> Self {
        Self { offers: Mutex::default(), given: Given::default(), gave: Arc::default(), cdi }
    }

    /// What was given away lately.
    #[must_use]
    pub const fn given(&self) -> &Given {
        &self.given
    }

    /// Is notified whenever a device was given away.
    #[must_use]
    pub fn gave(&self) -> Arc<Notify> {
        self.gave.clone()
    }

    /// From now on this is offered.
    pub fn offer(&self, offers: Arc<Offers>) {
        *self.offers.lock().unwrap_or_else(PoisonError::into_inner) = offers;
    }

    fn offers(&self) -> Arc<Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Allocator for Answers {
    /// Those first that the scheduler made for a pod which is on its way, in the order of their places: as the scheduler gives them away,
    /// so that mostly each pod gets the one that was meant for it.
    fn prefer(&self, resource: &ResourceName, choice: &Choice) -> Vec<DeviceId> {
        let offers = self.offers();
        let mut ids = choice.available.clone();
        let rank = |id: &DeviceId| offers.find(resource.as_str(), id.as_str()).map(|offer| (!offer.planned, offer.place));
        ids.sort_by_key(|id| rank(id).unwrap_or((true, (usize::MAX, usize::MAX))));
        ids.truncate(choice.size);
        ids
    }

    fn allocate(&self, resource: &ResourceName, devices: &[DeviceId]) -> Result<Allocation, String> {
        // Held to the end: what is taken from the offers now is either refused here, or known to be given before anybody destroys it.
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = || devices.iter().map(DeviceId::as_str);
        let offer = |id| offers.find(resource.as_str(), id).filter(|offer| offer.healthy);
        if let Some(id) = ids().find(|id| offer(id).is_none()) {
            return Err(format!("{id} is no longer there; the pod's owner makes another pod, which is placed anew"));
        }
        let (visible, cdi_devices) = if self.cdi {
            ("void".to_owned(), ids().map(cdi::name).collect())
        } else {
            (ids().map(visible).collect::<Vec<_>>().join(","), Vec::new())
        };
        let mut environment = BTreeMap::from([(VISIBLE.to_owned(), visible)]);
        let mut mounts = Vec::new();
        if let Some((offer, memory_mib, pipe)) = ids().filter_map(offer).find_map(share) {
            if devices.len() > 1 {
                return Err("a container can have one share under MPS: ask for 1, of a size that is enough".to_owned());
            }
            environment.extend(mps::environment(memory_mib, offer.memory_mib, Path::new(PIPE)));
            mounts = mps::mounts(pipe, Path::new(PIPE)).into_iter().map(|one| mount(&one)).collect();
        }
        self.given.add(resource.as_str(), ids(), Instant::now());
        self.gave.notify_one();
        Ok(Allocation { environment, cdi_devices, mounts, ..Allocation::default() })
    }
}

fn share(offer: &Offer) -> Option<(&Offer, u32, &Path)> {
    let What::Mps { memory_mib } = offer.what else { return None };
    Some((offer, memory_mib, offer.pipe.as_deref()?))
}

fn mount(mount: &mps::Mount) -> Mount {
    let text = |path: &Path| path.display().to_string();
    Mount { host_path: text(&mount.host), container_path: text(&mount.container), read_only: mount.read_only }
}

/// What NVIDIA's older way calls a device: a share is its GPU.
fn visible(id: &str) -> &str {
    id.split_once(OF).map_or(id, |(gpu, _)| gpu)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn answers(cdi: bool) -> Answers {
        let offer = |id: &str, healthy, planned| Offer {
            resource: "nvidia.com/gpu".into(),
            id: id.into(),
            what: What::Whole,
            healthy,
            used: false,
            planned,
            place: (0, 0),
            gpu: id.into(),
            minor: None,
            memory_mib: 1,
            pipe: None,
        };
        let answers = Answers::new(cdi);
        let offers = [offer("a", true, false), offer("b", true, true), offer("c", false, false)];
        answers.offer(Arc::new(offers.into_iter().collect()));
        answers
    }

    #[test]
    fn who_is_on_its_way_gets_what_was_made_for_it() {
        let id = |id| DeviceId::new(id).unwrap();
        let [a, b] = ["a", "b"].map(id);
        let gpu = ResourceName::new("nvidia.com/gpu").unwrap();
        let choice = Choice { available: vec![a.clone(), b.clone()], required: vec![], size: 1 };
        assert_eq!(answers(true).prefer(&gpu, &choice), [id("b")]);
        assert_eq!(answers(true).prefer(&gpu, &Choice { size: 2, ..choice }), [b, a]);
    }

    #[test]
    fn a_container_gets_what_is_there() {
        let ids = |ids: &[&str]| ids.iter().map(|id| DeviceId::new(id).unwrap()).collect::<Vec<_>>();
        let gpu = ResourceName::new("nvidia.com/gpu").unwrap();
        let given = answers(true).allocate(&gpu, &ids(&["a", "b"])).unwrap();
        assert_eq!((given.environment["NVIDIA_VISIBLE_DEVICES"].as_str(), given.cdi_devices.len()), ("void", 2));
        let given = answers(false).allocate(&gpu, &ids(&["a", "b"])).unwrap();
        assert_eq!((given.environment["NVIDIA_VISIBLE_DEVICES"].as_str(), given.cdi_devices.len()), ("a,b", 0));
        for gone in ["c", "d"] {
            assert!(answers(true).allocate(&gpu, &ids(&["a", gone])).unwrap_err().contains("no longer there"));
        }
    }
}
