//! Who uses what, from a kubelet that answers, and from one that does not.

use std::os::unix::net::UnixListener;

use partita_fake_kubelet::Pod;
use partita_kubelet::{Error, PodResources, Use};

use super::*;

fn used(pod: &str, container: &str, resource: &str, device: &str) -> Use {
    let [namespace, pod, container, resource, device] = ["default", pod, container, resource, device].map(str::to_owned);
    Use { namespace, pod, container, resource, device }
}

#[tokio::test]
async fn users_and_devices_are_told() {
    let world = World::new();
    let resources = PodResources::new(world.kubelet.pod_resources_socket());
    assert_eq!(resources.users().await.unwrap(), []);
    assert!(resources.allocatable().await.unwrap().is_empty());
    let ill = Device { healthy: false, ..Device::new(id("MIG-ill")) };
    let small = [devices(["MIG-a", "MIG-b"]), vec![ill]].concat();
    world.plugins.advertise(&name(SMALL), small).unwrap();
    world.advertise(LARGE, ["MIG-c"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
    world.until_healthy(LARGE, ["MIG-c"]).await;
    let set = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
    let expected = [(SMALL.to_owned(), set(&["MIG-a", "MIG-b"])), (LARGE.to_owned(), set(&["MIG-c"]))].into();
    assert_eq!(resources.allocatable().await.unwrap(), expected);

    world.kubelet.admit(&Pod { count: 2, ..Pod::new("one", SMALL) }).await.unwrap();
    world.kubelet.admit(&Pod { container: "second".to_owned(), ..Pod::new("one", LARGE) }).await.unwrap();
    let of_one = [used("one", "main", SMALL, "MIG-a"), used("one", "main", SMALL, "MIG-b"), used("one", "second", LARGE, "MIG-c")];
    assert_eq!(resources.users().await.unwrap(), of_one);
    assert_eq!(resources.users_in("default", "one").await.unwrap().unwrap(), of_one);
    assert_eq!(resources.users_in("default", "two").await.unwrap(), None);
    assert_eq!(resources.users_in("other", "one").await.unwrap(), None);

    // A restart of the kubelet is no matter to who asks.
    world.kubelet.start().unwrap();
    assert_eq!(resources.users().await.unwrap(), of_one);
    world.kubelet.terminate("default", "one");
    assert_eq!(resources.users().await.unwrap(), []);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
}

#[tokio::test]
async fn a_kubelet_that_is_down_or_unwilling_says_what_to_do() {
    let world = World::new();
    let socket = world.kubelet.pod_resources_socket();
    let resources = PodResources::new(&socket);
    world.kubelet.faults(|faults| faults.refuse_pod_resources = Some("rejected by rate limit".to_owned()));
    let refused = resources.users().await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { .. }) && refused.to_string().contains("rejected by rate limit"), "{refused}");
    assert!(matches!(resources.users_in("default", "one").await, Err(Error::Refused { .. })), "unwilling is not the same as unknown");
    world.kubelet.faults(|faults| faults.refuse_pod_resources = None);
    assert_eq!(resources.users().await.unwrap(), []);
    // 17 MB.
    world.kubelet.faults(|faults| faults.invented_pods = 17_000);
    let long = resources.users().await.unwrap_err();
    assert!(matches!(&long, Error::Refused { status, .. } if status.code() == tonic::Code::OutOfRange), "{long}");
    for end in [FakeKubelet::kill, |kubelet: &FakeKubelet| fs::remove_file(kubelet.pod_resources_socket()).unwrap()] {
        end(&world.kubelet);
        let down = resources.allocatable().await.unwrap_err();
        assert!(matches!(down, Error::Down { .. }));
        let text = down.to_string();
        assert!(text.contains(&socket.display().to_string()) && text.contains("check that it runs"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_answer_is_not_waited_for_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("kubelet.sock");
    let _listens = UnixListener::bind(&socket).unwrap();
    let slow = PodResources::new(&socket).users().await.unwrap_err();
    assert!(slow.to_string().contains("did not answer the list of pods within 10 s"), "{slow}");
}

#[tokio::test]
async fn garbage_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("kubelet.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // The last one answers the preface as HTTP/2 would, and then makes no sense.
    let nonsense: [&[u8]; 4] = [b"", b"HTTP/1.1 200 OK\r\n\r\n", &[255; 4096], &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 77, 0, 0, 0, 1, 9]];
    let count = nonsense.len();
    let answers = std::thread::spawn(move || {
        for bytes in nonsense {
            let (mut stream, _) = listener.accept().unwrap();
            // The other side may be gone already.
            let _ = std::io::Write::write_all(&mut stream, bytes);
        }
    });
    let resources = PodResources::new(&socket);
    for _ in 0..count {
        let error = resources.users().await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. } | Error::Down { .. }), "{error}");
    }
    answers.join().unwrap();
}
