//! Kubelets that come, go, refuse and forget: the resource is registered again, and nothing of it is lost.

use std::{os::unix::net::UnixListener, sync::mpsc::channel, time::Duration};

use partita_fake_kubelet::{Pod, Refused};
use partita_kubelet::State;

use super::*;

#[tokio::test]
async fn a_kubelet_that_comes_later_is_told() {
    let world = World::without_kubelet();
    world.advertise(SMALL, ["MIG-a"]);
    world.until_waiting(SMALL, "the kubelet does not run").await;
    world.advertise(SMALL, ["MIG-b"]);
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-b"]).await;
    world.until_state(SMALL, |state| *state == State::Registered).await;
}

#[tokio::test]
async fn a_restarted_kubelet_is_told_again_on_a_new_socket() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a", "MIG-b"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
    *world.agent.prefers.lock().unwrap() = vec![id("MIG-b")];
    assert_eq!(world.kubelet.admit(&Pod::new("before", SMALL)).await.unwrap().devices, ["MIG-b"]);

    // At once, so that plugins see only that the file is another one.
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
    // In order, with time in between.
    world.kubelet.stop().unwrap();
    world.until_waiting(SMALL, "the kubelet does not run").await;
    world.advertise(SMALL, ["MIG-a", "MIG-b", "MIG-c"]);
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    // Killed: its socket is a file that nobody listens on.
    world.kubelet.kill();
    world.until_waiting(SMALL, "the kubelet does not answer at").await;
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;

    let mut endpoints: Vec<String> = world.kubelet.registrations().into_iter().map(|registration| registration.endpoint).collect();
    let count = endpoints.len();
    endpoints.sort();
    endpoints.dedup();
    assert_eq!((endpoints.len(), count >= 4), (count, true), "no socket was registered twice: {endpoints:?}");
    assert_eq!(sockets(world.kubelet.device_plugins_folder()).len(), 2, "the former ones are gone");
    // What was used is still used.
    assert_eq!(world.kubelet.admit(&Pod::new("after", SMALL)).await.unwrap().devices, ["MIG-a"]);
}

#[tokio::test]
async fn a_socket_that_was_removed_is_replaced() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    let folder = world.kubelet.device_plugins_folder();
    for name in sockets(folder).into_iter().filter(|name| name.starts_with("partita-")) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    world.kubelet.until("it was registered again", |kubelet| kubelet.registrations().len() == 2).await;
    world.until_healthy(SMALL, ["MIG-a"]).await;
}

#[tokio::test]
async fn sockets_of_a_killed_process_go_and_those_of_others_stay() {
    let world = World::new();
    let folder = world.kubelet.device_plugins_folder();
    let (stale, foreign) = (folder.join("partita-gpu-01234567.sock"), folder.join("nvidia-gpu.sock"));
    drop(UnixListener::bind(&stale).unwrap());
    drop(UnixListener::bind(&foreign).unwrap());
    let used = folder.join("partita-gpu-fedcba98.sock");
    let _listens = UnixListener::bind(&used).unwrap();
    let file = folder.join("partita-note.sock");
    fs::write(&file, "no socket").unwrap();
    let _plugins = DevicePlugins::new(folder, world.agent.clone());
    assert_eq!([&stale, &foreign, &used, &file].map(|path| path.exists()), [false, true, true, true]);
}

#[tokio::test]
async fn a_kubelet_that_refuses_or_forgets_is_asked_until_it_takes_it() {
    let world = World::new();
    world.kubelet.faults(|faults| faults.refuse_registration = Some("not today".to_owned()));
    world.advertise(SMALL, ["MIG-a"]);
    world.until_waiting(SMALL, "refused the registration").await;
    world.until_waiting(SMALL, "not today").await;
    world.kubelet.until("it was asked three times", |kubelet| kubelet.registrations().len() >= 3).await;
    world.kubelet.faults(|faults| faults.refuse_registration = None);
    world.until_healthy(SMALL, ["MIG-a"]).await;

    // It says yes, and that is all.
    world.kubelet.faults(|faults| faults.forget_registration = true);
    world.kubelet.start().unwrap();
    world.until_waiting(SMALL, "did not ask for its devices").await;
    world.kubelet.faults(|faults| faults.forget_registration = false);
    world.until_healthy(SMALL, ["MIG-a"]).await;

    // A new resource while it is slow: it is registered all the same.
    world.kubelet.faults(|faults| faults.delay = Duration::from_millis(300));
    world.advertise(LARGE, ["MIG-b"]);
    world.until_healthy(LARGE, ["MIG-b"]).await;
}

#[tokio::test]
async fn a_kubelet_that_hangs_up_is_called_again() {
    let world = World::new();
    world.kubelet.faults(|faults| faults.hang_up_after = Some(2));
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    // The second list is the last one that this stream brings.
    world.advertise(SMALL, ["MIG-a", "MIG-b"]);
    world.kubelet.until("it was registered again", |kubelet| kubelet.registrations().len() == 2).await;
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
    world.kubelet.faults(|faults| faults.hang_up_after = None);
    world.advertise(SMALL, ["MIG-c"]);
    world.until_healthy(SMALL, ["MIG-c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_dies_in_allocate_finds_everything_as_it_was() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    let (go, gate) = channel();
    *world.agent.waits.lock().unwrap() = Some(gate);
    world.kubelet.faults(|faults| faults.die_in_allocate = true);
    let Refused(why) = world.kubelet.admit(&Pod::new("unlucky", SMALL)).await.unwrap_err();
    assert_eq!(why, "the kubelet died");
    drop(go);
    world.kubelet.faults(|faults| faults.die_in_allocate = false);
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-a"]).await;
    assert_eq!(world.kubelet.admit(&Pod::new("lucky", SMALL)).await.unwrap().devices, ["MIG-a"]);
}

#[tokio::test]
async fn a_folder_that_is_made_anew_is_found() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    world.kubelet.kill();
    fs::remove_dir_all(world.kubelet.device_plugins_folder()).unwrap();
    world.until_waiting(SMALL, "the kubelet does not run").await;
    world.kubelet.start().unwrap();
    world.until_healthy(SMALL, ["MIG-a"]).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_named() {
    let root = tempfile::tempdir().unwrap();
    // Longer than the path of a socket may be, which is refused to root as well.
    let folder = root.path().join("x".repeat(100));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("kubelet.sock"), "").unwrap();
    let plugins = DevicePlugins::new(&folder, Arc::new(Agent::default()));
    plugins.advertise(&name(SMALL), devices(["MIG-a"])).unwrap();
    let mut states = plugins.states();
    let waits = |state: &State| matches!(state, State::Waiting(why) if why.contains("nvidia.com/mig-1g.10gb cannot be served at"));
    states.wait_for(|states| states.values().any(waits)).await.unwrap();
}
