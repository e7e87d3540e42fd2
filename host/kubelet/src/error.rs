//! What can go wrong, with the object, the value and the remedy.

use std::{io, path::PathBuf, time::Duration};

use crate::limits;

/// Why something cannot be handed to the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name that the kubelet would not register.
    #[error("the resource name {0:?} is none that the kubelet takes: it must look like nvidia.com/mig-1g.10gb, outside of kubernetes.io")]
    Resource(String),
    /// An id that the kubelet could not take.
    #[error("the device id {0:?} must have 1 to {max} printable ASCII characters and no space", max = limits::DEVICE_ID_MAX)]
    DeviceId(String),
    /// Two devices of one id.
    #[error("{resource} has the device {device} twice: ids must differ")]
    Twice {
        /// Of this resource.
        resource: String,
        /// This one.
        device: String,
    },
    /// More devices than the kubelet could take in one message.
    #[error("{resource} has {count} devices, {max} are the most: make fewer partitions or shares", max = limits::DEVICES_MAX)]
    TooManyDevices {
        /// Of this resource.
        resource: String,
        /// So many.
        count: usize,
    },
    /// More resources than any node has.
    #[error("{resource} would be a resource too many, {max} are the most: withdraw one first", max = limits::RESOURCES_MAX)]
    TooManyResources {
        /// The one that was to be added.
        resource: String,
    },
    /// An answer to `Allocate` that no container runtime could use.
    #[error("{what} {value:?} cannot be given to a container: {remedy}")]
    Allocation {
        /// The kind of thing.
        what: &'static str,
        /// What it is.
        value: String,
        /// How it should be.
        remedy: &'static str,
    },
    /// An answer to `Allocate` that is too long.
    #[error("the answer to Allocate has {bytes} bytes, {max} are the most: give fewer devices or shorter variables", max = limits::ANSWER_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Why the kubelet could not be told or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it has written down cannot be read.
    #[error(
        "{path}, where the kubelet writes down who has which device, cannot be used: {source}; nothing is destroyed until it can, so let this program read \
         it, and report a kubelet that writes it otherwise"
    )]
    Books {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to be handed over makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody listens.
    #[error("the kubelet does not answer at {}: {source}; check that it runs and that its folder is mounted here", socket.display())]
    Down {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("the kubelet at {} did not answer {asked} within {} s; check its load and its log", socket.display(), within.as_secs())]
    Slow {
        /// Its socket.
        socket: PathBuf,
        /// The question.
        asked: &'static str,
        /// How long it had.
        within: Duration,
    },
    /// It answered with an error, or with something that is none of its messages.
    #[error("the kubelet at {} refused {asked}: {status}; its log says more", socket.display())]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// The question.
        asked: &'static str,
        /// What came back.
        status: Box<tonic::Status>,
    },
    /// It registered a plugin but did not ask for its devices.
    #[error("the kubelet at {} registered {resource} but did not ask for its devices within {} s; it will be registered anew",
        socket.display(), limits::WATCHED_WITHIN.as_secs())]
    NotWatched {
        /// Its socket.
        socket: PathBuf,
        /// The resource.
        resource: String,
    },
    /// Our socket cannot be made.
    #[error("{resource} cannot be served at {}: {source}; check that the folder can be written to and its path is short", socket.display())]
    Listen {
        /// The resource.
        resource: String,
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
