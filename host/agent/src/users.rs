//! Who uses what, by the kubelet's word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use partita_kubelet::Use;

/// What joins the UUID of a GPU and the number of one of its shares in the id of a device.
pub const OF: &str = "::";

/// Who is named for a device that was given away so recently that the kubelet does not name a pod yet.
pub const STARTING: &str = "a container that starts";

/// Who is named for a device that the kubelet has written down as given away, and of which it names no pod: an init container has it, or a
/// pod that has ended, until the kubelet writes again.
pub const WRITTEN: &str = "a container that the kubelet has written down";

/// How long a device counts as used after it was given away, whatever the kubelet lists: it lists a pod, and writes it down, a moment after it
/// has asked for its devices.
const STARTS_WITHIN: Duration = Duration::from_mins(5);

/// What the kubelet said when it was asked last: who uses which device, and which devices it could give away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Pods as `namespace/name`, by device and the resource as which they have it.
    users: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Devices that it holds, by resource.
    held: BTreeMap<String, BTreeSet<String>>,
    /// What it has written down as given away, as (resource, device), and names no pod for.
    written: BTreeSet<(String, String)>,
}

impl Kubelet {
    /// From its two answers.
    #[must_use]
    pub fn new(uses: &[Use], held: BTreeMap<String, BTreeSet<String>>) -> Self {
        let mut named: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for one in uses {
            let resources = named.entry(one.device.clone()).or_default();
            resources.entry(one.resource.clone()).or_default().insert(format!("{}/{}", one.namespace, one.pod));
        }
        Self { users: named, held, written: BTreeSet::new() }
    }

    /// The same, and this is what it has written down, as (resource, device).
    #[must_use]
    pub fn and_written(mut self, written: BTreeSet<(String, String)>) -> Self {
        self.written = written.into_iter().filter(|(_, device)| !self.users.contains_key(device)).collect();
        self
    }

    /// Devices that are written down as given away and have no pod's name, each with its resource. `gpu` is the device or, with all its
    /// shares, the GPU.
    pub fn written<'a>(&'a self, gpu: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let its = self.written.iter().filter(move |(_, device)| is_of(device, gpu));
        its.map(|(resource, device)| (resource.as_str(), device.as_str()))
    }

    /// The same, and these devices were given away so lately that it does not name a pod yet.
    #[must_use]
    pub fn with(mut self, starting: BTreeMap<String, String>) -> Self {
        for (device, resource) in starting {
            self.users.entry(device).or_default().entry(resource).or_default().insert(STARTING.to_owned());
        }
        self
    }

    /// The pods that use a device.
    #[must_use]
    pub fn users(&self, device: &str) -> Vec<String> {
        let pods: BTreeSet<&String> = self.users.get(device).into_iter().flatten().flat_map(|(_, pods)| pods).collect();
        pods.into_iter().cloned().collect()
    }

    /// The pods that use a GPU as a whole or a share of it.
    #[must_use]
    pub fn users_of_gpu(&self, gpu: &str) -> Vec<String> {
        let devices = self.users.keys().filter(|device| is_of(device, gpu));
        devices.flat_map(|device| self.users(device)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The resources as which pods have a device.
    pub fn resources(&self, device: &str) -> impl Iterator<Item = &str> {
        self.users.get(device).into_iter().flatten().map(|(resource, _)| resource.as_str())
    }

    /// Every used device of a GPU, itself or a share of it, with the resource as which it is used.
    pub fn used_of_gpu<'a>(&'a self, gpu: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let used = self.users.iter().filter(move |(device, _)| is_of(device, gpu));
        used.flat_map(|(device, resources)| resources.keys().map(move |resource| (resource.as_str(), device.as_str())))
    }

    /// Whether it could give a device away under the name of this resource.
    #[must_use]
    pub fn holds(&self, resource: &str, device: &str) -> bool {
        self.held.get(resource).is_some_and(|devices| devices.contains(device))
    }

    /// The devices that it could give away, each with its resource.
    pub fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().flat_map(|(resource, devices)| devices.iter().map(move |device| (resource.as_str(), device.as_str())))
    }
}

/// Whether a device is a GPU or a share of it.
#[must_use]
pub fn is_of(device: &str, gpu: &str) -> bool {
    device.strip_prefix(gpu).is_some_and(|rest| rest.is_empty() || rest.starts_with(OF))
}

/// Devices that were given away lately, each with the resource as which it was given and the moment.
#[derive(Debug, Default)]
pub struct Given(Mutex<BTreeMap<String, (String, Instant)>>);

impl Given {
    /// These were given away at this moment.
    pub fn add(&self, resource: &str, devices: impl Iterator<Item = impl Into<String>>, now: Instant) {
        let mut known = self.lock();
        known.retain(|_, (_, at)| now.duration_since(*at) < STARTS_WITHIN);
        known.extend(devices.map(|device| (device.into(), (resource.to_owned(), now))));
    }

    /// Those that may still be without a name, each with its resource. One that the kubelet has named is left to the kubelet from then on.
    #[must_use]
    pub fn starting(&self, kubelet: &Kubelet, now: Instant) -> BTreeMap<String, String> {
        let mut known = self.lock();
        known.retain(|device, (_, at)| now.duration_since(*at) < STARTS_WITHIN && !kubelet.users.contains_key(device));
        known.iter().map(|(device, (resource, _))| (device.clone(), resource.clone())).collect()
    }

    /// Whether a device was given as another resource.
    #[must_use]
    pub fn otherwise(&self, resource: &str, device: &str) -> bool {
        self.lock().get(device).is_some_and(|(name, _)| name != resource)
    }

    /// Whether one of them is so.
    #[must_use]
    pub fn any(&self, is_so: impl Fn(&str) -> bool) -> bool {
        self.lock().keys().any(|device| is_so(device))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (String, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(pod: &str, resource: &str, device: &str) -> Use {
        let [namespace, pod, container, resource, device] = ["n", pod, "c", resource, device].map(str::to_owned);
        Use { namespace, pod, container, resource, device }
    }

    #[test]
    fn a_gpu_is_used_by_who_uses_a_share_of_it() {
        let kubelet = Kubelet::new(&[used("p", "r", "GPU-1::250m0"), used("q", "s", "GPU-1"), used("q", "r", "GPU-12")], BTreeMap::new());
        assert_eq!(kubelet.users_of_gpu("GPU-1"), ["n/p", "n/q"]);
        assert_eq!(kubelet.users("GPU-1"), ["n/q"]);
        assert_eq!(kubelet.used_of_gpu("GPU-1").collect::<Vec<_>>(), [("s", "GPU-1"), ("r", "GPU-1::250m0")]);
        assert_eq!(kubelet.resources("GPU-12").collect::<Vec<_>>(), ["r"]);
    }

    #[test]
    fn what_was_given_away_is_used_until_the_kubelet_knows_better() {
        let (given, start) = (Given::default(), Instant::now());
        given.add("r", ["a", "b"].into_iter(), start);
        let nobody = Kubelet::default();
        assert_eq!(given.starting(&nobody, start).len(), 2);
        let known = Kubelet::new(&[used("p", "r", "a")], BTreeMap::new());
        let starting = given.starting(&known, start);
        assert_eq!(starting, [("b".to_owned(), "r".to_owned())].into());
        let kubelet = known.with(starting);
        assert_eq!((kubelet.users("a"), kubelet.users("b")), (vec!["n/p".to_owned()], vec![STARTING.to_owned()]));
        assert_eq!(kubelet.resources("b").collect::<Vec<_>>(), ["r"]);
        // Its pod has ended.
        assert_eq!(given.starting(&nobody, start).len(), 1);
        assert!(given.any(|device| device == "b") && !given.any(|device| device == "a"));
        assert!(given.starting(&nobody, start + STARTS_WITHIN).is_empty());
    }
}
