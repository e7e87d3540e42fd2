//! Schedulers that stand by and take over.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    check,
    make::{cores, mig, urgent, whole},
    world::{World, binds, done, evicts},
};
use crate::{
    objects::Pod,
    scheduler::effect::{Effect, Outcome},
    translate::keys,
};

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

#[test]
fn a_layout_of_a_former_leader_takes_nothing_from_pods_of_the_next() {
    let is_layout = |effect: &Effect| matches!(effect, Effect::Layout { .. });
    for lands_first in [true, false] {
        let mut world = World::new(&[("a", &["A30"])]);
        world.create([mig("warm", "4g.24gb")]);
        world.pass(2);
        world.server.delete_pod("ns/warm");
        world.reap();
        // The partition is to go for a whole GPU, but that is not written yet.
        world.holds = is_layout;
        world.create([whole("w", 1)]);
        world.settle();
        let former = world.take_wish(is_layout);
        world.server.delete_pod("ns/w");
        world.start();
        world.create([mig("q", "4g.24gb")]);
        world.settle();
        assert_eq!(world.wished(binds("q")), 0, "it may go at any moment");
        if lands_first {
            assert_eq!(world.execute(&former), done(&former, Outcome::Done));
            world.settle();
        }
        world.holds = |_| false;
        world.pass(5);
        assert_eq!(world.place("q"), "a 0:4g.24gb@0");
        assert_ne!(world.execute(&former), done(&former, Outcome::Done));
        check::rest(&world);
    }
}
