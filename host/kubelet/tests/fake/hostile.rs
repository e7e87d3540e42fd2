//! Whoever is on the other side of a socket: garbage, too much, half a call. The call fails, the resource stays.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use partita_fake_kubelet::Pod;
use partita_kubelet::{
    limits,
    proto::v1beta1::{AllocateRequest, ContainerAllocateRequest, Empty},
};
use tonic::Code;

use super::*;

/// A call about a container for each of `containers`.
pub(super) fn request(containers: &[&[&str]]) -> AllocateRequest {
    let container = |ids: &&[&str]| ContainerAllocateRequest { devices_ids: ids.iter().map(ToString::to_string).collect() };
    AllocateRequest { container_requests: containers.iter().map(container).collect() }
}

async fn still_serves(world: &World) {
    assert_eq!(world.kubelet.healthy(SMALL), ["MIG-a"]);
    assert_eq!(world.kubelet.admit(&Pod::new("after", SMALL)).await.unwrap().devices, ["MIG-a"]);
    world.kubelet.terminate("default", "after");
    assert_eq!(world.kubelet.registrations().len(), 1, "the stream was never lost");
}

async fn world() -> World {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection() {
    let world = world().await;
    let folder = world.kubelet.device_plugins_folder();
    let socket = sockets(folder).into_iter().find(|name| name.starts_with("partita-")).unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let frame = [0, 0, 0, 4, 0, 0, 0, 0, 0].as_slice();
    // A frame that says it has 16 MiB.
    let huge = [255, 255, 255, 0, 0, 0, 0, 0, 1].as_slice();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 4096], &[255; 4096], preface, &[preface, frame, huge].concat()] {
        let mut stream = UnixStream::connect(folder.join(&socket)).unwrap();
        // It may be closed before everything is written.
        let _ = stream.write_all(bytes);
        if bytes != preface {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        drop(stream);
        still_serves(&world).await;
    }
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused() {
    let world = world().await;
    let mut plugin = world.kubelet.plugin(SMALL).unwrap();
    let long = "x".repeat(64);
    let containers: Vec<&[&str]> = vec![&["MIG-a"]; limits::CONTAINERS_MAX + 1];
    let cases: [(&[&[&str]], &str); 7] = [
        (&[], "1 to 64 containers, not 0"),
        (&containers, "1 to 64 containers, not 65"),
        (&[&[]], "no device of nvidia.com/mig-1g.10gb was named"),
        (&[&["MIG-a", "MIG-a"]], "the device MIG-a was named twice"),
        (&[&[""]], "the device id \"\" must have 1 to 63"),
        (&[&[&long]], "must have 1 to 63"),
        (&[&["MIG a"]], "the device id \"MIG a\" must have"),
    ];
    for (containers, words) in cases {
        let refused = plugin.allocate(request(containers)).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(words), "{refused}");
    }
    let many: Vec<String> = (0..=limits::DEVICES_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = plugin.allocate(request(&[&many])).await.unwrap_err();
    assert!(refused.message().contains("4097 devices in one call, 4096 are the most"), "{refused}");
    // More bytes than a call may have: refused before it is decoded.
    let refused = plugin.allocate(request(&[&[&"x".repeat(limits::CALL_BYTES_MAX)]])).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(world.agent.allocated.lock().unwrap().is_empty());
    still_serves(&world).await;
}

#[tokio::test]
async fn who_watches_too_often_is_refused() {
    let world = world().await;
    let mut plugin = world.kubelet.plugin(SMALL).unwrap();
    let mut streams = Vec::new();
    // The kubelet has one.
    for _ in 1..limits::WATCHERS_MAX {
        let mut stream = plugin.list_and_watch(Empty {}).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().devices.len(), 1);
        streams.push(stream);
    }
    let refused = plugin.list_and_watch(Empty {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // Who hangs up makes room.
    streams.pop();
    let mut again = plugin.list_and_watch(Empty {}).await;
    while again.is_err() {
        tokio::task::yield_now().await;
        again = plugin.list_and_watch(Empty {}).await;
    }
    still_serves(&world).await;
}
