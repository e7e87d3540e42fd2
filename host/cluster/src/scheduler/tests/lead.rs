//! Schedulers that stand by and take over.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    check,
    make::{cores, urgent},
    world::{World, evicts},
};
use crate::{objects::Pod, translate::keys};

const DAY_MS: u64 = 86_400_000;

/// A pod on node `a` that was promised an hour and started a minute ago.
fn promised(now_ms: u64) -> Pod {
    let mut pod = cores("low", 12);
    pod.spec.value.node_name = "a".into();
    pod.metadata.annotations.get_or_insert_default().insert(keys::MIN_RUNTIME.into(), "1h".into());
    let started = Timestamp::from_millisecond(now_ms.cast_signed() - 60_000).unwrap();
    pod.status.value.start_time = Some(Time(started));
    pod
}

#[test]
fn who_stood_by_for_days_keeps_what_pods_were_promised() {
    for stood_by in [true, false] {
        let mut world = World::new(&[("a", &[])]);
        if stood_by {
            world.stand_by();
        }
        world.settle();
        world.now_ms = 3 * DAY_MS;
        world.create([promised(world.now_ms)]);
        world.settle();
        world.now_ms += 1000;
        if stood_by {
            world.take_over();
        }
        world.create([urgent(cores("high", 10), 10)]);
        world.pass(3);
        assert_eq!(world.wished(evicts("low")), 0, "{stood_by}");
        // Once the hour is over it goes.
        world.now_ms += 3_600_000;
        world.pass(3);
        assert_eq!(world.wished(evicts("low")), 1, "{stood_by}");
        check::books(&world);
    }
}
