//! What a node agent says to the kubelet and hears from it, over gRPC on Unix sockets.
//!
//! - [`DevicePlugins`] hands devices to the kubelet: one *resource* (a name such as `nvidia.com/mig-1g.10gb`) is one device plugin on a socket
//!   of its own. Devices appear and vanish while it runs, and an [`Allocator`] of the agent's answers what a container gets.
//! - [`PodResources`] asks the kubelet who uses which device, and which devices it holds.
//!
//! # How a resource comes to be known
//!
//! The kubelet listens on `kubelet.sock` in a fixed folder. A plugin listens on another socket there and tells the kubelet its name; the
//! kubelet then calls it and keeps one stream open, `ListAndWatch`, in which the plugin sends its whole list after every change. So a
//! resource is *registered* exactly as long as that stream is open, and everything else follows from that. The task of a resource
//! (`plugin/resource.rs`) repeats:
//!
//! 1. wait until there is a `kubelet.sock`;
//! 2. listen on a socket with a new name, register it, wait for the stream;
//! 3. hold on until the stream ends, our socket vanishes (the kubelet removes all sockets when it starts), or `kubelet.sock` is another one;
//! 4. close that socket, and begin again, after a growing pause if it did not work.
//!
//! A new name for each registration, since the kubelet refuses a path that it believes to be connected, and for ever so if two
//! registrations of one path overlapped (`devicemanager/manager.go` and `plugin/v1beta1/handler.go` of Kubernetes 1.37: the second one is
//! refused, and makes the kubelet forget to clean up after the first). The folder is looked at five times a second
//! ([`limits::LOOK_EVERY`]): two calls of `stat`, which cannot miss what a notification lost, and which work when the whole folder is made
//! anew.
//!
//! # What the kubelet does with it, and what an agent has to know
//!
//! - A device that a container uses must stay in the list: the kubelet refuses to restart a container whose device is missing or unhealthy.
//! - A resource that is withdrawn, or whose agent is gone, has no allocatable devices at once, and is forgotten after five minutes.
//! - The kubelet waits for `Allocate` without a limit and holds up other pods meanwhile, so the agent's answer has one
//!   ([`limits::ANSWER_WITHIN`]).
//! - `Allocate` tells no pod. Who got a device is in [`PodResources::users`], except for init containers that are not sidecars: what only
//!   they use is not listed.
//!
//! Whoever can open these sockets is root on this machine already (they are made for their owner alone), but what comes through them may
//! still be wrong: messages, lists, streams and calls have limits ([`limits`]), what makes no sense is refused with a message, and nothing
//! that is said there ends more than the call that it came with.

mod books;
mod connect;
mod device;
mod error;
pub mod limits;
mod plugin;
mod pods;
pub mod proto;

pub use books::{BOOKS_FILE, written_down};
pub use device::{Allocation, Choice, Device, DeviceId, DeviceNode, Mount, ResourceName};
pub use error::{Error, Invalid};
pub use plugin::{Allocator, DevicePlugins, State};
pub use pods::{PodResources, Use};

/// Where the kubelet expects device plugins, whatever its root folder is.
pub const DEVICE_PLUGINS_FOLDER: &str = "/var/lib/kubelet/device-plugins";
/// Where the kubelet answers who uses what, if its root folder is the usual one.
pub const POD_RESOURCES_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
