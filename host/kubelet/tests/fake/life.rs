//! A resource's ordinary life: registered, listed, preferred, allocated, withdrawn.

use partita_fake_kubelet::{Pod, Refused};
use partita_kubelet::{
    Allocation, Device, Error, Invalid, State, limits,
    proto::v1beta1::{ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, PreferredAllocationRequest},
};

use super::*;

#[tokio::test]
async fn a_container_gets_what_the_agent_says() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a", "MIG-b"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b"]).await;
    world.until_state(SMALL, |state| *state == State::Registered).await;
    let registrations = world.kubelet.registrations();
    let options = DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true };
    assert_eq!(registrations.len(), 1);
    assert_eq!((registrations[0].version.as_str(), registrations[0].resource.as_str()), ("v1beta1", SMALL));
    assert_eq!(registrations[0].options, Some(options));
    let mut plugin = world.kubelet.plugin(SMALL).unwrap();
    assert_eq!(plugin.get_device_plugin_options(Empty {}).await.unwrap().into_inner(), options);

    let pod = Pod { count: 2, ..Pod::new("training", SMALL) };
    let admitted = world.kubelet.admit(&pod).await.unwrap();
    assert_eq!(admitted.devices, ["MIG-a", "MIG-b"]);
    let answer = admitted.answer;
    assert_eq!(answer.envs["NVIDIA_VISIBLE_DEVICES"], "MIG-a,MIG-b");
    assert_eq!(answer.envs["RESOURCE"], SMALL);
    let names: Vec<&str> = answer.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["partita.dev/gpu=MIG-a", "partita.dev/gpu=MIG-b"]);
    assert_eq!((answer.mounts[0].host_path.as_str(), answer.mounts[0].read_only), ("/dev/shm", false));
    assert_eq!((answer.devices[0].container_path.as_str(), answer.devices[0].permissions.as_str()), ("/dev/gpu", "rw"));
    assert_eq!(answer.annotations["partita.dev/device"], "MIG-a,MIG-b");
    assert_eq!(*world.agent.allocated.lock().unwrap(), [[id("MIG-a"), id("MIG-b")]]);
}

#[tokio::test]
async fn devices_appear_and_vanish_in_a_running_stream() {
    let world = World::new();
    world.advertise(SMALL, []);
    world.kubelet.until("the empty list was seen", |kubelet| kubelet.devices(SMALL).is_some()).await;
    world.advertise(SMALL, ["MIG-a"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    world.advertise(SMALL, ["MIG-a", "MIG-b", "MIG-c"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    let ill = Device { healthy: false, numa: Some(1), ..Device::new(id("MIG-b")) };
    world.plugins.advertise(&name(SMALL), vec![Device::new(id("MIG-c")), ill]).unwrap();
    world.until_healthy(SMALL, ["MIG-c"]).await;
    assert!(!world.kubelet.devices(SMALL).unwrap()["MIG-b"]);
    assert_eq!(world.kubelet.registrations().len(), 1, "it was one stream all the time");
}

#[tokio::test]
async fn every_resource_has_a_socket_of_its_own_and_goes_alone() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    world.advertise(LARGE, ["MIG-b"]);
    world.advertise("nvidia.com/gpu", ["GPU-c"]);
    world.until_healthy(SMALL, ["MIG-a"]).await;
    world.until_healthy(LARGE, ["MIG-b"]).await;
    world.until_healthy("nvidia.com/gpu", ["GPU-c"]).await;
    let names = sockets(world.kubelet.device_plugins_folder());
    let ours = |resource: &str| names.iter().filter(|name| name.starts_with(&format!("partita-{resource}-"))).count();
    assert_eq!([ours("mig-1g.10gb"), ours("mig-3g.40gb"), ours("gpu"), names.len()], [1, 1, 1, 4], "{names:?}");

    world.plugins.withdraw(&name(LARGE)).await;
    assert_eq!(sockets(world.kubelet.device_plugins_folder()).len(), 3);
    world.until_healthy(LARGE, []).await;
    assert!(!world.plugins.states().borrow().contains_key(&name(LARGE)));
    world.until_healthy(SMALL, ["MIG-a"]).await;
    assert_eq!(world.kubelet.registrations().len(), 3, "the others kept their streams");

    world.advertise(LARGE, ["MIG-d"]);
    world.until_healthy(LARGE, ["MIG-d"]).await;
    let World { kubelet, plugins, .. } = world;
    plugins.stop().await;
    assert_eq!(sockets(kubelet.device_plugins_folder()), ["kubelet.sock"]);
}

#[tokio::test]
async fn dropping_the_plugins_closes_them_too() {
    let World { kubelet, plugins, _root, .. } = World::new();
    plugins.advertise(&name(SMALL), devices(["MIG-a"])).unwrap();
    kubelet.until("it was registered", |kubelet| kubelet.healthy(SMALL) == ["MIG-a"]).await;
    drop(plugins);
    kubelet.until("the kubelet saw the end", |kubelet| kubelet.healthy(SMALL).is_empty()).await;
    kubelet.until("the socket was gone", |kubelet| sockets(kubelet.device_plugins_folder()) == ["kubelet.sock"]).await;
}

#[tokio::test]
async fn what_the_kubelet_could_not_take_is_refused_and_the_former_list_stays() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a"]);
    let twice = world.plugins.advertise(&name(SMALL), devices(["MIG-b", "MIG-b"])).unwrap_err();
    assert!(matches!(&twice, Error::Invalid(Invalid::Twice { device, .. }) if device == "MIG-b"), "{twice}");
    let many = (0..=limits::DEVICES_MAX).map(|number| Device::new(id(&number.to_string()))).collect();
    let many = world.plugins.advertise(&name(SMALL), many).unwrap_err();
    assert!(matches!(many, Error::Invalid(Invalid::TooManyDevices { count, .. }) if count == limits::DEVICES_MAX + 1));
    for number in 1..limits::RESOURCES_MAX {
        world.plugins.advertise(&name(&format!("nvidia.com/gpu-{number}")), Vec::new()).unwrap();
    }
    let many = world.plugins.advertise(&name(LARGE), Vec::new()).unwrap_err();
    assert!(matches!(&many, Error::Invalid(Invalid::TooManyResources { resource }) if resource == LARGE), "{many}");
    world.until_healthy(SMALL, ["MIG-a"]).await;
}

#[tokio::test]
async fn the_longest_list_arrives() {
    let world = World::new();
    let longest: Vec<Device> = (0..limits::DEVICES_MAX).map(|number| Device::new(id(&format!("{number:063}")))).collect();
    world.plugins.advertise(&name(SMALL), longest).unwrap();
    world.kubelet.until("all had arrived", |kubelet| kubelet.healthy(SMALL).len() == limits::DEVICES_MAX).await;
    let all = Pod { count: limits::DEVICES_MAX - 1, ..Pod::new("large", SMALL) };
    *world.agent.gives.lock().unwrap() = Some(Allocation::default());
    assert_eq!(world.kubelet.admit(&all).await.unwrap().devices.len(), limits::DEVICES_MAX - 1);
}

#[tokio::test]
async fn the_agent_steers_towards_the_planned_partition() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a", "MIG-b", "MIG-c"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    *world.agent.prefers.lock().unwrap() = vec![id("MIG-c"), id("MIG-a")];
    assert_eq!(world.kubelet.admit(&Pod::new("one", SMALL)).await.unwrap().devices, ["MIG-c"]);
    let choice = world.agent.choices.lock().unwrap().pop().unwrap();
    assert_eq!(choice, Choice { available: ["MIG-a", "MIG-b", "MIG-c"].map(id).into(), required: Vec::new(), size: 1 });
    // Preferred, but in use: it is not available any more, so the preference counts as none.
    assert_eq!(world.kubelet.admit(&Pod::new("two", SMALL)).await.unwrap().devices, ["MIG-a"]);
}

#[tokio::test]
async fn a_choice_that_makes_no_sense_is_refused_and_required_devices_are_always_chosen() {
    let world = World::new();
    world.advertise(SMALL, ["MIG-a", "MIG-b", "MIG-c"]);
    world.until_healthy(SMALL, ["MIG-a", "MIG-b", "MIG-c"]).await;
    *world.agent.prefers.lock().unwrap() = vec![id("MIG-c"), id("MIG-b"), id("MIG-a")];
    let mut plugin = world.kubelet.plugin(SMALL).unwrap();
    let mut ask = async |available: &[&str], required: &[&str], size| {
        let texts = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let request = ContainerPreferredAllocationRequest {
            available_device_i_ds: texts(available),
            must_include_device_i_ds: texts(required),
            allocation_size: size,
        };
        let answer = plugin.get_preferred_allocation(PreferredAllocationRequest { container_requests: vec![request] }).await;
        answer.map(|answer| answer.into_inner().container_responses[0].device_i_ds.clone()).map_err(|status| status.message().to_owned())
    };
    let all = &["MIG-a", "MIG-b", "MIG-c"];
    assert_eq!(ask(all, &["MIG-a"], 2).await.unwrap(), ["MIG-a", "MIG-c"]);
    assert_eq!(ask(all, &[], 3).await.unwrap(), ["MIG-c", "MIG-b", "MIG-a"]);
    assert_eq!(ask(&["MIG-a", "MIG-b"], &["MIG-b"], 2).await.unwrap(), ["MIG-b"], "the agent named one that is not available");
    assert!(
        ask(all, &["MIG-x"], 2).await.unwrap_err().contains("device MIG-x of nvidia.com/mig-1g.10gb must be chosen but is not available")
    );
    for size in [-1, 0, 1, 4] {
        let refused = ask(all, &["MIG-a", "MIG-b"], size).await.unwrap_err();
        assert!(refused.contains(&format!("{size} of 3 devices")), "{refused}");
    }
    assert!(ask(&["MIG-a", "MIG-a"], &[], 1).await.unwrap_err().contains("MIG-a was named twice"));
    let long = "x".repeat(64);
    assert!(ask(&[&long], &[], 1).await.unwrap_err().contains("1 to 63"));
}

#[tokio::test]
async fn refusals_say_why_and_the_next_pod_is_served() {
    let world = World::new();
    let ill = Device { healthy: false, ..Device::new(id("MIG-ill")) };
    world.plugins.advertise(&name(SMALL), vec![Device::new(id("MIG-a")), ill]).unwrap();
    world.until_healthy(SMALL, ["MIG-a"]).await;
    let mut plugin = world.kubelet.plugin(SMALL).unwrap();
    for (device, words) in
        [("MIG-x", "MIG-x of nvidia.com/mig-1g.10gb does not exist"), ("MIG-ill", "MIG-ill of nvidia.com/mig-1g.10gb is unhealthy")]
    {
        let refused = plugin.allocate(super::hostile::request(&[&["MIG-a"], &[device]])).await.unwrap_err();
        assert!(refused.message().contains(words), "{refused}");
    }
    assert!(world.agent.allocated.lock().unwrap().is_empty(), "the agent was not asked about half a call");

    let pod = Pod::new("training", SMALL);
    let refused = async |words: &str| {
        let Refused(why) = world.kubelet.admit(&pod).await.unwrap_err();
        assert!(why.contains(words), "{why}");
    };
    *world.agent.refuses.lock().unwrap() = Some("GPU 3 is quarantined: its driver hangs".to_owned());
    refused("MIG-a of nvidia.com/mig-1g.10gb cannot be given to a container: GPU 3 is quarantined: its driver hangs").await;
    *world.agent.refuses.lock().unwrap() = Some("no ".repeat(100_000));
    refused("no no").await;
    *world.agent.refuses.lock().unwrap() = None;
    *world.agent.panics.lock().unwrap() = true;
    refused("the node agent failed").await;
    *world.agent.gives.lock().unwrap() = Some(Allocation { cdi_devices: vec!["gpu0".to_owned()], ..Allocation::default() });
    refused("the CDI device \"gpu0\" cannot be given to a container: it must look like vendor.com/class=name").await;
    assert_eq!(world.kubelet.admit(&pod).await.unwrap().devices, ["MIG-a"]);
    assert_eq!(world.kubelet.registrations().len(), 1);
}
