//! The cases by which nos's agents were described, asked of the plan of one GPU: groups Annotations and names, and mig-agent plan.
//!
//! nos wants numbers of profiles and lets the driver place them; partita wants partitions at places. So each case is played with places, and
//! where nos destroys and makes anew what is there already, the better answer is that it stays.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;

use partita_core::model::{Cut, Grid, Placement, catalog};
use partita_device::{
    Wish,
    mig::{Existing, Plan, Problem, Question, Spec, Step, plan},
};

/// What became of a case.
enum Case {
    /// It holds as it stands, or with the answer marked as the better one.
    Holds(fn()),
    /// It holds in the form that our model gives it, which is the text.
    InOurForm(&'static str, fn()),
    /// It means nothing here, for this reason.
    Meaningless(&'static str),
}
use Case::{Holds, InOurForm, Meaningless};

/// A partition that is there, and who uses it.
type There = (&'static str, u8, &'static [&'static str]);

fn grid() -> Grid {
    catalog::builtin("H100-80GB").unwrap().grid.unwrap()
}

/// The plan of a GPU with these partitions, numbered from 1, for this layout.
fn asked(there: &[There], wanted: &[(&str, u8)]) -> Plan {
    let grid = grid();
    let existing: Vec<Existing> = (1..)
        .zip(there)
        .map(|(instance, (profile, start, users))| Existing {
            instance,
            spec: Some(Spec { profile: (*profile).to_owned(), start: *start }),
            slots: grid.slots_of(Placement { profile: grid.resolve(profile).unwrap(), start: *start }),
            compute: 1,
            whole: true,
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            adopted: false,
        })
        .collect();
    let spec = |(profile, start): &(&str, u8)| Spec { profile: (*profile).to_owned(), start: *start };
    let (partitions, shares) = (wanted.iter().map(spec).collect(), Vec::new());
    let (gpu, generation, cut) = ("GPU-0".to_owned(), (1, 1), Cut::Mig);
    let wish = Wish { gpu, generation, cut, partitions, shares, time_sliced: false, may_switch: false };
    plan(&Question { grid: Some(&grid), mig: true, pending: true, existing: &existing, users: &[], blind: None, wish: &wish })
}

fn creates(plan: &Plan) -> Vec<(String, u8)> {
    let made = |step: &Step| if let Step::Create { spec, .. } = step { Some((spec.profile.clone(), spec.start)) } else { None };
    plan.steps.iter().filter_map(made).collect()
}

fn destroys(plan: &Plan) -> Vec<u32> {
    let gone = |step: &Step| if let Step::Destroy { instance } = step { Some(*instance) } else { None };
    plan.steps.iter().filter_map(gone).collect()
}

const PROTOCOL: &str = "there are no annotations: the layout and what was found are a GpuNode, whose schema the API server checks";
const REPORT: &str =
    "what is told are partitions, not numbers of them; host/agent/tests/offers.rs and the tests of the node agent see to it";
/// One free, one used, one free.
const THREE: &[There] = &[("1g.10gb", 0, &[]), ("1g.10gb", 1, &["ns/p"]), ("1g.10gb", 2, &[])];

const CASES: &[(&str, Case)] = &[
    ("AN-01", Meaningless(PROTOCOL)),
    ("AN-02", Meaningless(PROTOCOL)),
    ("AN-03", Meaningless(PROTOCOL)),
    ("AN-04", Meaningless(PROTOCOL)),
    (
        "AN-05",
        InOurForm("what was found matches the layout, used or free, when nothing is left to do", || {
            let there: &[There] = &[("1g.10gb", 0, &["ns/p"]), ("1g.10gb", 1, &[]), ("3g.40gb", 4, &[])];
            assert!(asked(there, &[("3g.40gb", 4), ("1g.10gb", 1), ("1g.10gb", 0)]).steps.is_empty());
        }),
    ),
    (
        "AN-06",
        InOurForm("one more is wanted than there is", || {
            let plan = asked(&[("1g.10gb", 0, &["ns/p"])], &[("1g.10gb", 0), ("4g.40gb", 0), ("3g.40gb", 4)]);
            assert_eq!(creates(&plan), [("3g.40gb".to_owned(), 4)]);
            assert!(matches!(&plan.refused[..], [(spec, Problem::Overlaps { .. })] if spec.profile == "4g.40gb"));
        }),
    ),
    ("AN-07", Holds(|| assert!(asked(&[], &[]).steps.is_empty()))),
    ("AN-08", Meaningless(REPORT)),
    ("AN-09", Meaningless("no GPU is initialised: a GPU without partitions is whole, or warm")),
    ("AN-10", Meaningless(REPORT)),
    ("AN-11", Meaningless(REPORT)),
    (
        "MA-01",
        InOurForm("each GPU has a plan of its own, and 4g.20gb is 4g.40gb on this model", || {
            let first = asked(&[], &[("4g.40gb", 0), ("1g.20gb", 4)]);
            let second = asked(&[], &[("1g.10gb", 0), ("1g.10gb", 1)]);
            assert_eq!((creates(&first).len(), creates(&second).len()), (2, 2));
            assert!(destroys(&first).is_empty() && destroys(&second).is_empty());
        }),
    ),
    (
        "MA-02",
        InOurForm("what is used is not even planned to go", || {
            let first = asked(&[("1g.10gb", 0, &["ns/p"]), ("1g.10gb", 1, &["ns/q"])], &[]);
            assert!(first.steps.is_empty() && first.kept.len() == 2);
            let second = asked(&[("2g.20gb", 0, &[])], &[]);
            assert_eq!((destroys(&second), creates(&second).len()), (vec![1], 0));
        }),
    ),
    (
        "MA-03",
        InOurForm("the one that is wanted is named by its place", || {
            let plan = asked(THREE, &[("1g.10gb", 1)]);
            assert_eq!((destroys(&plan), creates(&plan).len(), plan.there), (vec![1, 3], 0, vec![2]));
            // A planner that did not know who uses what: what is used stays beside what is made.
            let plan = asked(THREE, &[("1g.10gb", 5)]);
            assert_eq!((destroys(&plan), creates(&plan).len(), plan.kept.len()), (vec![1, 3], 1, 1));
        }),
    ),
    (
        "MA-04",
        InOurForm("nothing is destroyed to be made again: places are chosen before, so there is no order to try", || {
            let plan = asked(THREE, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2), ("1g.10gb", 3)]);
            assert_eq!((destroys(&plan), creates(&plan)), (vec![], vec![("1g.10gb".to_owned(), 3)]));
        }),
    ),
    (
        "MA-05",
        InOurForm("nothing is destroyed to be made again", || {
            let plan = asked(THREE, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2), ("2g.20gb", 4)]);
            assert_eq!((destroys(&plan), creates(&plan)), (vec![], vec![("2g.20gb".to_owned(), 4)]));
        }),
    ),
    (
        "MA-06",
        InOurForm("plans for the same layout in another order do the same", || {
            let wanted = [("1g.10gb", 1), ("2g.20gb", 4), ("1g.10gb", 3)];
            let mut other = wanted;
            other.reverse();
            let [one, other] = [asked(THREE, &wanted), asked(THREE, &other)];
            let made = |plan: &Plan| creates(plan).into_iter().collect::<BTreeSet<_>>();
            assert_eq!((made(&one), destroys(&one)), (made(&other), destroys(&other)));
            assert_ne!(one, Plan::default());
        }),
    ),
    (
        "MA-07",
        Meaningless("the agent is the device plugin itself, and its list changes without a restart: the tests of the node agent see to it"),
    ),
    (
        "MA-08",
        Holds(|| {
            let plan = asked(THREE, &[("1g.10gb", 0), ("1g.10gb", 1), ("1g.10gb", 2)]);
            assert!(plan.steps.is_empty() && plan.there == [1, 2, 3]);
        }),
    ),
    (
        "MA-09",
        Holds(|| {
            let used: &[There] = &[("1g.10gb", 0, &["ns/p"]), ("1g.10gb", 1, &["ns/q"])];
            let plan = asked(used, &[("1g.10gb", 0)]);
            assert!(plan.steps.is_empty());
            assert!(matches!(&plan.kept[..], [(2, Problem::Used { users, .. })] if users == "ns/q"));
        }),
    ),
    ("MA-10", Holds(|| assert_eq!(asked(THREE, &[("1g.10gb", 1)]), asked(THREE, &[("1g.10gb", 1)])))),
    (
        "MA-11",
        Holds(|| {
            let all: Vec<(&str, u8)> = (0..7).map(|start| ("1g.10gb", start)).collect();
            let plan = asked(&[], &all);
            assert_eq!(creates(&plan).into_iter().map(|one| one.1).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        }),
    ),
];

#[test]
fn every_case_holds_or_says_why_it_means_nothing() {
    let named: BTreeSet<&str> = CASES.iter().map(|case| case.0).collect();
    let all: BTreeSet<String> =
        [("AN", 11), ("MA", 11)].iter().flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}-{n:02}"))).collect();
    assert_eq!(named, all.iter().map(String::as_str).collect::<BTreeSet<_>>());
    for (_, case) in CASES {
        match case {
            Holds(play) => play(),
            InOurForm(form, play) => {
                assert!(!form.is_empty());
                play();
            }
            Meaningless(why) => assert!(!why.is_empty()),
        }
    }
}
