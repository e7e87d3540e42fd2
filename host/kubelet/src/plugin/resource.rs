//! The task of one resource: listen, register, hold on, and again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UnixListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::{
    Allocator, State, States,
    service::{OPTIONS, Service, Shared, Watchers},
    socket::{Identity, Socket},
};
use crate::{
    connect::connect,
    device::{Device, ResourceName},
    error::Error,
    limits,
    proto::v1beta1::{self as wire, device_plugin_server::DevicePluginServer, registration_client::RegistrationClient},
};

/// The kubelet's socket in the folder of plugins.
const KUBELET: &str = "kubelet.sock";
/// The version of the interface, as it is registered.
const VERSION: &str = "v1beta1";

/// Everything that one resource needs.
pub(super) struct Task {
    pub(super) resource: ResourceName,
    pub(super) folder: PathBuf,
    pub(super) devices: watch::Receiver<Arc<[Device]>>,
    pub(super) allocator: Arc<dyn Allocator>,
    pub(super) states: watch::Sender<States>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Task {
    /// Runs until `stop` is true or its sender is gone.
    pub(super) async fn run(self) {
        let mut stop = self.stop.clone();
        let shared = Arc::new(Shared {
            resource: self.resource.clone(),
            devices: self.devices.clone(),
            allocator: self.allocator.clone(),
            questions: Arc::new(Semaphore::new(limits::QUESTIONS_AT_ONCE)),
        });
        let mut open = None;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep_registered(&shared, &mut open) => {}
        }
        if let Some(open) = open {
            open.close().await;
        }
    }

    /// `open` is the socket that is listened on, kept outside so that it can be closed in order.
    async fn keep_registered(&self, shared: &Arc<Shared>, open: &mut Option<Open>) {
        let kubelet = self.folder.join(KUBELET);
        let mut pause = limits::PAUSE_FIRST;
        loop {
            let Some(identity) = Identity::of(&kubelet) else {
                self.say(State::Waiting(format!("there is no {}: the kubelet does not run", kubelet.display())));
                pause = limits::PAUSE_FIRST;
                tokio::time::sleep(limits::LOOK_EVERY).await;
                continue;
            };
            match self.register(shared, &kubelet, open).await {
                Ok(()) => {
                    self.say(State::Registered);
                    pause = limits::PAUSE_FIRST;
                    // Seen anew: it may have started in between, and then it is this one that knows us.
                    let why = hold(open.as_ref(), &kubelet, Identity::of(&kubelet)).await;
                    self.say(State::Waiting(why.to_owned()));
                }
                Err(error) => {
                    self.say(State::Waiting(error.to_string()));
                    self.pause(pause, &kubelet, identity).await;
                    pause = (pause * 2).min(limits::PAUSE_MAX);
                }
            }
            if let Some(open) = open.take() {
                open.close().await;
            }
        }
    }

    /// Listens on a new socket, registers it, and returns when the kubelet watches it.
    async fn register(&self, shared: &Arc<Shared>, kubelet: &Path, open: &mut Option<Open>) -> Result<(), Error> {
        let (socket, listener) = Socket::listen(&self.folder, &self.resource).map_err(|(socket, source)| Error::Listen {
            resource: self.resource.to_string(),
            socket,
            source,
        })?;
        let endpoint = socket.name();
        let open = open.insert(Open::new(socket, listener, shared.clone()));
        let request = wire::RegisterRequest {
            version: VERSION.to_owned(),
            endpoint,
            resource_name: self.resource.to_string(),
            options: Some(OPTIONS),
        };
        let call = async {
            let channel = connect(kubelet).await?;
            let mut client = RegistrationClient::new(channel).max_decoding_message_size(limits::REGISTERED_BYTES_MAX);
            let refused = |status| Error::Refused { socket: kubelet.to_owned(), asked: "the registration", status: Box::new(status) };
            client.register(request).await.map_err(refused)
        };
        let (asked, within) = ("the registration", limits::REGISTERED_WITHIN);
        timeout(within, call).await.map_err(|_| Error::Slow { socket: kubelet.to_owned(), asked, within })??;
        let watched = async {
            while !open.watchers.any() {
                open.watchers.changed.notified().await;
            }
        };
        let not_watched = |_| Error::NotWatched { socket: kubelet.to_owned(), resource: self.resource.to_string() };
        timeout(limits::WATCHED_WITHIN, watched).await.map_err(not_watched)
    }

    /// Waits, but not on after the kubelet started anew.
    async fn pause(&self, pause: Duration, kubelet: &Path, identity: Identity) {
        let anew = async {
            while Identity::of(kubelet) == Some(identity) {
                tokio::time::sleep(limits::LOOK_EVERY).await;
            }
        };
        // Either will do.
        let _ = timeout(pause, anew).await;
    }

    fn say(&self, state: State) {
        self.states.send_if_modified(|states| {
            // A resource that is withdrawn meanwhile has no state.
            let Some(known) = states.get_mut(&self.resource).filter(|known| **known != state) else { return false };
            match &state {
                State::Registered => tracing::info!(resource = %self.resource, "registered with the kubelet"),
                State::Waiting(why) => tracing::warn!(resource = %self.resource, why, "not registered with the kubelet"),
            }
            *known = state;
            true
        });
    }
}

/// Returns when the registration is worth nothing any more, with the reason.
async fn hold(open: Option<&Open>, kubelet: &Path, identity: Option<Identity>) -> &'static str {
    let Some(open) = open else { return "nobody listens" };
    let mut look = tokio::time::interval(limits::LOOK_EVERY);
    loop {
        if !open.watchers.any() {
            return "the kubelet does not watch it any more";
        }
        if !open.socket.is_there() {
            return "its socket was removed, as the kubelet does when it starts";
        }
        if Identity::of(kubelet) != identity {
            return "the kubelet started anew";
        }
        if open.server.is_finished() {
            return "its server ended";
        }
        tokio::select! {
            () = open.watchers.changed.notified() => {}
            _ = look.tick() => {}
        }
    }
}

/// A socket on which a resource is served. Dropped without [`Self::close`] it ends as well, without waiting for calls under way.
struct Open {
    socket: Socket,
    watchers: Arc<Watchers>,
    closing: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Open {
    fn new(socket: Socket, listener: UnixListener, shared: Arc<Shared>) -> Self {
        let watchers = Arc::new(Watchers::default());
        let (closing, closed) = watch::channel(false);
        let service = DevicePluginServer::new(Service { shared, watchers: watchers.clone(), closing: closed.clone() })
            .max_decoding_message_size(limits::CALL_BYTES_MAX);
        let path = socket.path.clone();
        let server = tokio::spawn(async move {
            let closed = wait(closed);
            let server = Server::builder().max_concurrent_streams(Some(limits::STREAMS_PER_CONNECTION_MAX)).add_service(service);
            if let Err(error) = server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), closed).await {
                tracing::error!(socket = %path.display(), %error, "a socket for the kubelet failed");
            }
        });
        Self { socket, watchers, closing, server }
    }

    async fn close(mut self) {
        self.closing.send_replace(true);
        if timeout(limits::STOPPED_WITHIN, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

async fn wait(mut closed: watch::Receiver<bool>) {
    // Also when the sender is gone.
    let _ = closed.wait_for(|closed| *closed).await;
}
