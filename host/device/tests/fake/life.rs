//! Partitions come and go.

use std::cell::Cell;

use nvidia_ml::{Fault, What};
use partita_core::model::Cut;
use partita_device::{PartState, Wish};

use crate::support::{Machine, NOBODY, at, truth, why, wish};

#[test]
fn a_layout_is_made_and_made_another() {
    let machine = Machine::cut("H100-80GB×2");
    let gpu = machine.uuid(1);
    let mut node = machine.node();
    let found = node.apply(&wish(&gpu, 1, &[("3g.40gb", 4), ("1g.10gb", 0), ("1g.10gb+me", 1)]), NOBODY);
    assert_eq!(machine.truth(1), truth(&[("3g.40gb", 4), ("1g.10gb", 0), ("1g.10gb+me", 1)]));
    assert!(found.parts.iter().all(|part| part.state == PartState::Ready && part.ours && part.uuid.is_some()), "{found:#?}");
    let kept = at(&found, "1g.10gb", 0).uuid.clone();
    // Another spelling; the larger needs the slots of two that go.
    let found = node.apply(&wish(&gpu, 2, &[("1g.10gb", 0), ("nvidia.com/mig-2g.20gb", 2), ("4g.40gb", 0)]), NOBODY);
    assert_eq!(machine.truth(1), truth(&[("1g.10gb", 0), ("2g.20gb", 2)]));
    assert_eq!(at(&found, "1g.10gb", 0).uuid, kept, "what is wanted is not made anew");
    assert!(why(at(&found, "4g.40gb", 0)).contains("it overlaps 1g.10gb at slot 0"));
    assert_eq!(machine.truth(0), []);
    let found = node.apply(&wish(&gpu, 3, &[]), NOBODY);
    assert_eq!((machine.truth(1), found.parts.len()), (truth(&[]), 0));
    // The same again, with another UUID.
    let found = node.apply(&wish(&gpu, 4, &[("1g.10gb", 0)]), NOBODY);
    assert_ne!(at(&found, "1g.10gb", 0).uuid, kept);
}

#[test]
fn what_is_used_stays_whoever_knows() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2)]), NOBODY);
    machine.fake.hold(0, at(&found, "1g.10gb", 0).instance, 99).unwrap();
    let pods = at(&found, "1g.10gb", 1).uuid.clone();
    let kubelet =
        |_: &str, uuid: Option<&str>| Ok(if uuid == pods.as_deref() && uuid.is_some() { vec!["ns/pod".to_owned()] } else { Vec::new() });
    let found = node.apply(&wish(&gpu, 2, &[("3g.40gb", 0), ("3g.40gb", 4)]), &kubelet);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0), ("1g.10gb", 1), ("3g.40gb", 4)]));
    assert!(why(at(&found, "1g.10gb", 0)).contains("used by pid:99"));
    assert_eq!(at(&found, "1g.10gb", 1).users, ["ns/pod"]);
    assert!(why(at(&found, "3g.40gb", 0)).contains("overlaps 1g.10gb at slot 0, which stays: 1g.10gb at slot 0 is used by pid:99"));
    assert_eq!(at(&found, "3g.40gb", 4).state, PartState::Ready);
    machine.fake.end(99).unwrap();
    let found = node.apply(&wish(&gpu, 3, &[("3g.40gb", 0), ("3g.40gb", 4)]), NOBODY);
    assert_eq!((machine.truth(0), found.parts.len()), (truth(&[("3g.40gb", 0), ("3g.40gb", 4)]), 2));
}

#[test]
fn who_comes_at_the_last_moment_is_not_thrown_out() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    // Nobody uses it when the steps are planned, and somebody does when they are done.
    let asked = Cell::new(0);
    let kubelet = |_: &str, mig: Option<&str>| {
        asked.set(asked.get() + usize::from(mig.is_some()));
        Ok(if mig.is_some() && asked.get() > 1 { vec!["ns/pod".to_owned()] } else { Vec::new() })
    };
    let found = node.apply(&wish(&gpu, 2, &[("2g.20gb", 0)]), &kubelet);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0)]));
    assert!(why(at(&found, "1g.10gb", 0)).contains("ns/pod") && why(at(&found, "2g.20gb", 0)).contains("ns/pod"));
}

#[test]
fn nothing_goes_while_nobody_knows_who_uses_it() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    let down = |_: &str, _: Option<&str>| Err("the kubelet does not answer".to_owned());
    let found = node.apply(&wish(&gpu, 2, &[("2g.20gb", 2)]), &down);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0), ("2g.20gb", 2)]));
    assert!(why(at(&found, "1g.10gb", 0)).contains("the kubelet does not answer"));
    assert!(found.notes.iter().any(|note| note.contains("the kubelet does not answer")));
}

#[test]
fn a_driver_that_does_not_tell_of_users_keeps_everything() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    machine.fake.fault(Fault::always("nvmlDeviceGetComputeRunningProcesses_v3", What::Code(4))).unwrap();
    let found = node.apply(&wish(&gpu, 2, &[("2g.20gb", 2)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0), ("2g.20gb", 2)]));
    assert!(found.unusable.is_none() && found.notes.len() == 1 && found.notes[0].contains("run as root"), "{found:#?}");
    // It tells of a process, but not of its partition.
    machine.fake.heal().unwrap();
    machine.fake.hold(0, None, 31).unwrap();
    let found = node.apply(&wish(&gpu, 3, &[]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("1g.10gb", 0), ("2g.20gb", 2)]));
    assert!(why(at(&found, "1g.10gb", 0)).contains("pid:31") && at(&found, "1g.10gb", 0).is_usable());
}

#[test]
fn what_others_made_is_adopted_and_goes_only_by_a_later_layout() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[]), NOBODY);
    machine.fake.make(0, "2g.20gb", 0, true).unwrap();
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 6)]), NOBODY);
    assert!(why(at(&found, "2g.20gb", 0)).contains("made by somebody else") && !at(&found, "2g.20gb", 0).ours);
    // Restarted, and told the same again.
    drop(node);
    let mut node = machine.node();
    node.apply(&wish(&gpu, 1, &[("1g.10gb", 6)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("2g.20gb", 0), ("1g.10gb", 6)]));
    let found = node.apply(&wish(&gpu, 2, &[("1g.10gb", 6)]), NOBODY);
    assert_eq!((machine.truth(0), found.parts.len()), (truth(&[("1g.10gb", 6)]), 1));
    // Half of one: it is completed where it is wanted.
    machine.fake.make(0, "3g.40gb", 0, false).unwrap();
    node.apply(&wish(&gpu, 3, &[("3g.40gb", 0)]), NOBODY);
    assert_eq!(machine.truth(0), truth(&[("3g.40gb", 0)]));
}

#[test]
fn one_that_others_divided_is_not_as_wanted_and_stays() {
    let machine = Machine::cut("H100-80GB");
    let gpu = machine.uuid(0);
    machine.fake.make(0, "3g.40gb", 4, true).unwrap();
    machine.fake.edit(|state| state.gpus[0].instances[0].compute[0].slices = 1).unwrap();
    let found = machine.node().apply(&wish(&gpu, 1, &[("3g.40gb", 4)]), NOBODY);
    assert!(why(at(&found, "3g.40gb", 4)).contains("somebody else made"), "{found:#?}");
    assert_eq!(machine.truth(0).len(), 1);
}

fn whole(gpu: &str, generation: i64) -> Wish {
    Wish { cut: Cut::Shares, may_switch: true, ..wish(gpu, generation, &[]) }
}

#[test]
fn mig_is_switched_where_it_may_and_nobody_is_on_the_gpu() {
    let machine = Machine::new("H100-80GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    let found = node.apply(&wish(&gpu, 1, &[("1g.10gb", 0)]), NOBODY);
    assert!(why(at(&found, "1g.10gb", 0)).contains("partita.dev/partitioning") && !found.gpu.is_cut());
    let on = |generation| Wish { may_switch: true, ..wish(&gpu, generation, &[("1g.10gb", 0)]) };
    machine.fake.hold(0, None, 5).unwrap();
    let found = node.apply(&on(2), NOBODY);
    assert!(why(at(&found, "1g.10gb", 0)).contains("while pid:5 use the GPU") && !found.gpu.is_cut());
    machine.fake.end(5).unwrap();
    machine.fake.keep_handle(0, None, 6).unwrap();
    let found = node.apply(&on(3), NOBODY);
    assert!(why(at(&found, "1g.10gb", 0)).contains("monitors such as DCGM"));
    machine.fake.end(6).unwrap();
    let found = node.apply(&on(4), NOBODY);
    assert!(found.gpu.is_cut() && at(&found, "1g.10gb", 0).state == PartState::Ready && found.notes.is_empty(), "{found:#?}");
    // Off again: only when all of it can go.
    machine.fake.hold(0, at(&found, "1g.10gb", 0).instance, 7).unwrap();
    let found = node.apply(&whole(&gpu, 5), NOBODY);
    assert!(found.gpu.is_cut() && why(at(&found, "1g.10gb", 0)).contains("pid:7"));
    machine.fake.end(7).unwrap();
    let found = node.apply(&whole(&gpu, 6), NOBODY);
    assert!(!found.gpu.is_cut() && found.parts.is_empty() && found.notes.is_empty());
}

#[test]
fn ampere_is_switched_by_a_reset_which_is_said() {
    let machine = Machine::new("A100-40GB");
    let gpu = machine.uuid(0);
    let mut node = machine.node();
    let on = |generation| Wish { may_switch: true, ..wish(&gpu, generation, &[("1g.5gb", 0)]) };
    let found = node.apply(&on(1), NOBODY);
    assert!(why(at(&found, "1g.5gb", 0)).contains("at the next reset") && !found.gpu.is_cut());
    machine.fake.reset(0).unwrap();
    let found = node.apply(&on(2), NOBODY);
    assert_eq!(at(&found, "1g.5gb", 0).state, PartState::Ready);
}

#[test]
fn after_a_boot_everything_is_made_anew() {
    for (model, profile) in [("H100-80GB", "1g.10gb"), ("A100-40GB", "1g.5gb")] {
        let machine = Machine::cut(model);
        let gpu = machine.uuid(0);
        let on = |generation| Wish { may_switch: true, ..wish(&gpu, generation, &[(profile, 0), (profile, 3)]) };
        machine.node().apply(&on(1), NOBODY);
        machine.fake.reboot().unwrap();
        let mut node = machine.node();
        assert!(node.look(NOBODY).unwrap()[0].parts.is_empty());
        let found = node.apply(&on(1), NOBODY);
        assert_eq!((machine.truth(0), found.parts.len()), (truth(&[(profile, 0), (profile, 3)]), 2), "{model}");
    }
}

#[test]
fn what_cannot_be_is_said() {
    let machine = Machine::cut("H100-80GB,T4");
    let mut node = machine.node();
    let found = node.apply(&wish(&machine.uuid(0), 1, &[("3g.40gb", 1), ("1g.5gb", 0), ("1g.10gb+me", 0), ("1g.10gb+me", 1)]), NOBODY);
    assert!(why(at(&found, "3g.40gb", 1)).contains("can start at slots [0, 4] only"));
    assert!(why(at(&found, "1g.5gb", 0)).contains("there is no profile 1g.5gb on this model"));
    assert!(why(at(&found, "1g.10gb+me", 1)).contains("exceeds a count"));
    assert_eq!(machine.truth(0), truth(&[("1g.10gb+me", 0)]));
    let found = node.apply(&wish(&machine.uuid(1), 1, &[("1g.10gb", 0)]), NOBODY);
    assert!(why(at(&found, "1g.10gb", 0)).contains("cannot be cut by MIG"));
    let found = node.apply(&wish("GPU-of-another-node", 1, &[("1g.10gb", 0)]), NOBODY);
    assert!(found.unusable.is_some() && why(at(&found, "1g.10gb", 0)).contains("NOT_FOUND"), "{found:#?}");
}
