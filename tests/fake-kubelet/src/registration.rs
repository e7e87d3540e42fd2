//! Plugins register, and their devices are watched.

use std::{io, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use partita_kubelet::proto::v1beta1::{
    Empty, RegisterRequest, device_plugin_client::DevicePluginClient, registration_server::Registration as Interface,
};
use tokio::net::UnixStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Shared,
    books::{Plugin, Registration},
    lock,
};

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Interface for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let RegisterRequest { version, endpoint, resource_name: resource, options } = request.into_inner();
        let registration = Registration { version, endpoint: endpoint.clone(), resource: resource.clone(), options };
        lock(&self.0.books).registrations.push(registration.clone());
        let faults = lock(&self.0.faults).clone();
        tokio::time::sleep(faults.delay).await;
        if let Some(words) = faults.refuse_registration {
            return Err(Status::unknown(words));
        }
        if registration.version != "v1beta1" {
            return Err(Status::unknown(format!("requested API version {:?} is not supported by kubelet", registration.version)));
        }
        if faults.forget_registration {
            return Ok(Response::new(Empty {}));
        }
        let unreachable = |error| Status::unknown(format!("failed to dial device plugin: {error}"));
        let channel = connect(&self.0.folder.join(&endpoint)).await.map_err(unreachable)?;
        let mut client = DevicePluginClient::new(channel);
        client.get_device_plugin_options(Empty {}).await?;
        {
            let mut books = lock(&self.0.books);
            if books.is_connected(&endpoint) {
                return Err(Status::unknown(format!("device plugin already connected: {endpoint}")));
            }
            books.connect(&resource, Plugin { endpoint: endpoint.clone(), client: client.clone() });
        }
        tokio::spawn(watch(self.0.clone(), resource, endpoint, client));
        Ok(Response::new(Empty {}))
    }
}

/// Reads lists until the stream ends.
async fn watch(shared: Arc<Shared>, resource: String, endpoint: String, mut client: DevicePluginClient<Channel>) {
    if let Ok(stream) = client.list_and_watch(Empty {}).await {
        let mut stream = stream.into_inner();
        let mut lists = 0;
        while let Ok(Some(list)) = stream.message().await {
            let devices = list.devices.into_iter().map(|device| (device.id, device.health == "Healthy")).collect();
            let mut books = lock(&shared.books);
            books.devices.insert(resource.clone(), devices);
            books.write(&shared.folder);
            lists += 1;
            if lock(&shared.faults).hang_up_after.is_some_and(|most| lists >= most) {
                break;
            }
        }
    }
    lock(&shared.books).disconnect(&resource, &endpoint);
}

async fn connect(socket: &Path) -> io::Result<Channel> {
    let mut stream = Some(UnixStream::connect(socket).await?);
    let once = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)).map(TokioIo::new);
        std::future::ready(stream)
    });
    Endpoint::from_static("http://localhost").connect_with_connector(once).await.map_err(io::Error::other)
}
