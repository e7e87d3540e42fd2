//! Every limit of this crate, and why it is what it is.

use std::time::Duration;

/// Characters of a device's id (`k8s.io/kubelet`, device plugin v1beta1).
pub const DEVICE_ID_MAX: usize = 63;
/// Resources of one agent: no model has more than 20 profiles, and a node has few models.
pub const RESOURCES_MAX: usize = 128;
/// Devices of one resource: 16 GPUs in 256 shares. Their list is below 0.5 MiB, an eighth of what the kubelet takes in one message.
pub const DEVICES_MAX: usize = 4096;
/// Containers in one call; the kubelet asks for one at a time.
pub const CONTAINERS_MAX: usize = 64;
/// Bytes of a call to us: [`DEVICES_MAX`] ids fit twice, as the available and the required ones.
pub const CALL_BYTES_MAX: usize = 1 << 20;
/// Bytes of our answer to one `Allocate`: a quarter of what the kubelet takes in one message.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the kubelet's answer to a registration, which is empty.
pub const REGISTERED_BYTES_MAX: usize = 64 << 10;
/// Bytes of the kubelet's answer on pod resources: the kubelet's own clients take as much.
pub const POD_RESOURCES_BYTES_MAX: usize = 16 << 20;
/// Calls and streams on one connection at a time.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Streams of `ListAndWatch` of one resource: the kubelet keeps one, and may not have noticed yet that an older one ended.
pub const WATCHERS_MAX: usize = 4;
/// Questions to the agent under way at once, for each resource. Further ones wait.
pub const QUESTIONS_AT_ONCE: usize = 8;

/// How often the kubelet's folder is looked at: pods that start before a plugin is registered are refused, so soon.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the kubelet may take to register a plugin: it calls back meanwhile and gives itself ten seconds for that.
pub const REGISTERED_WITHIN: Duration = Duration::from_secs(15);
/// How long the kubelet may take from there to the stream of devices, which it opens as the next thing.
pub const WATCHED_WITHIN: Duration = Duration::from_secs(5);
/// How long the agent may take to answer the kubelet, which waits without a limit of its own and holds up other pods meanwhile.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long the kubelet may take to answer on pod resources.
pub const POD_RESOURCES_WITHIN: Duration = Duration::from_secs(10);
/// How long calls under way may take to end once a plugin stops.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(2);
/// The pause after a first failure to register; it doubles with each further one.
pub const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause between two tries to register.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
