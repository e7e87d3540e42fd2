//! Handshakes, one call at a time.

use super::{
    super::report::{Condition, Part},
    *,
};

const POD: PodId = PodId(1);
const OTHER: PodId = PodId(2);
const ONCE: Count<'static> = &|_| Often::ONCE;

fn part() -> Part {
    Part::mig("1g.10gb", 0)
}

fn need(part: Part) -> Need {
    Need { gpu: 0, part, resource: None }
}

fn report(term: i64, generation: i64, condition: Option<Condition>) -> Report {
    let mut report = Report::default();
    (report.done, report.asked) = ((term, generation), (term, generation));
    report.saying(0, condition.map(|condition| (part(), condition)))
}

fn ready(term: i64, generation: i64) -> Report {
    report(term, generation, Some(Condition::Ready))
}

fn asked() -> Handshakes {
    let mut all = Handshakes::new(3);
    all.found("a", 7);
    all.ask("a", POD, vec![need(part())], 0);
    all
}

fn fails(all: &mut Handshakes, generation: i64, retry_ms: u64, now_ms: u64) {
    assert!(all.written("a", generation, Err(WriteError { why: "no".into(), again_ms: Some(retry_ms) }), now_ms).is_empty());
}

#[test]
fn a_pod_is_ready_when_the_agent_has_done_its_generation_and_says_so() {
    let mut all = asked();
    assert_eq!(all.writes(0), [("a".to_owned(), 8)]);
    assert!(all.writes(0).is_empty(), "one write at a time");
    all.written("a", 8, Ok(()), 0);
    assert!(all.reported("a", &ready(3, 7), ONCE).is_empty(), "an older generation");
    assert!(all.reported("a", &ready(2, 8), ONCE).is_empty(), "another leader's");
    assert!(all.reported("a", &ready(4, 8), ONCE).is_empty(), "a later leader's");
    assert!(all.reported("a", &ready(3, 9), ONCE).is_empty(), "never asked for");
    assert!(all.reported("a", &report(3, 8, None), ONCE).is_empty(), "still being made");
    assert_eq!(all.reported("a", &ready(3, 8), ONCE), [(POD, Outcome::Ready)]);
    assert!(all.reported("a", &ready(3, 8), ONCE).is_empty(), "told once");
    assert!(all.is_settled("a", &ready(3, 8)) && !all.is_busy());
    assert!(!all.is_settled("a", &ready(3, 7)), "the object that was seen is an older one");
}

#[test]
fn pods_that_come_during_a_write_share_the_next() {
    let mut all = asked();
    all.writes(0);
    all.ask("a", OTHER, vec![need(part())], 0);
    all.ask("a", PodId(3), vec![need(part())], 0);
    assert!(all.writes(0).is_empty());
    all.written("a", 8, Ok(()), 0);
    assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
    assert_eq!(all.reported("a", &ready(3, 8), ONCE), [(POD, Outcome::Ready)]);
    assert_eq!(all.reported("a", &ready(3, 9), ONCE).len(), 2);
}

#[test]
fn a_write_that_fails_is_tried_again_later_under_another_number() {
    let mut all = asked();
    all.writes(0);
    fails(&mut all, 8, 100, 0);
    assert!(all.writes(99).is_empty());
    assert_eq!(all.writes(100), [("a".to_owned(), 9)], "8 may have been written all the same");
    assert!(all.reported("a", &ready(3, 8), ONCE).is_empty());
    all.written("a", 9, Ok(()), 100);
    assert_eq!(all.reported("a", &ready(3, 9), ONCE), [(POD, Outcome::Ready)]);
}

#[test]
fn a_layout_that_is_refused_is_not_tried_again() {
    let mut all = asked();
    all.writes(0);
    all.ask("a", OTHER, vec![need(part())], 0);
    let refused = || Err(WriteError { why: "no".into(), again_ms: None });
    assert!(all.written("a", 7, refused(), 0).is_empty(), "not the one under way");
    assert_eq!(all.written("a", 8, refused(), 0), [POD, OTHER]);
    assert!(all.writes(1_000_000).is_empty() && !all.is_busy() && all.waiting().count() == 0);
    all.ask("a", POD, vec![need(part())], 0);
    assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
}

#[test]
fn a_number_is_not_used_again_though_nobody_waits_any_more() {
    let mut all = asked();
    all.writes(0);
    all.forget("a", POD);
    fails(&mut all, 8, 0, 0);
    assert!(all.writes(0).is_empty());
    all.ask("a", OTHER, vec![need(part())], 0);
    assert_eq!(all.writes(0), [("a".to_owned(), 9)]);
}

#[test]
fn who_waits_for_what_somebody_wrote_over_waits_for_a_new_layout() {
    let mut all = asked();
    all.found("a", 8);
    assert_eq!(all.writes(0), [("a".to_owned(), 9)], "somebody else took the number");
    all.found("a", 9);
    all.written("a", 9, Ok(()), 0);
    all.found("a", 9);
    assert!(all.writes(0).is_empty(), "that was its own");
    all.found("a", 50);
    assert_eq!(all.writes(0), [("a".to_owned(), 51)]);
    assert!(all.reported("a", &ready(3, 50), ONCE).is_empty());
}

#[test]
fn failure_and_silence_are_told_and_end_the_wait() {
    let mut all = asked();
    all.writes(0);
    all.written("a", 8, Ok(()), 0);
    let failed = Condition::Failed("in use".into());
    let outcome = Outcome::Failed { gpu: 0, message: "in use".into() };
    assert_eq!(all.reported("a", &report(3, 8, Some(failed)), ONCE), [(POD, outcome)]);
    all.ask("a", OTHER, vec![need(part())], 10);
    all.writes(10);
    assert!(all.overdue(10 + SILENCE_MS).is_empty(), "its layout was not even written");
    all.written("a", 9, Ok(()), 20);
    // Others who come do not make the agent any less silent.
    all.ask("a", PodId(3), vec![need(part())], 1000);
    all.writes(1000);
    all.written("a", 10, Ok(()), 1000);
    assert!(all.overdue(20 + SILENCE_MS - 1).is_empty());
    assert_eq!(all.overdue(20 + SILENCE_MS), [("a".to_owned(), OTHER, Late::Silent)]);
    assert_eq!(all.waiting().count(), 1);
}

#[test]
fn a_layout_that_cannot_be_written_ends_the_wait_too() {
    let mut all = asked();
    all.writes(0);
    assert!(all.overdue(ANSWER_MS - 1).is_empty());
    assert_eq!(all.overdue(ANSWER_MS), [("a".to_owned(), POD, Late::Unwritten("the API server does not answer".to_owned()))]);
    assert!(!all.is_busy());
    let mut all = asked();
    for second in 0..60 {
        let writes = all.writes(second * 1000);
        fails(&mut all, writes[0].1, 500, second * 1000);
        assert!(all.overdue(second * 1000).is_empty());
    }
    assert_eq!(all.overdue(60_000), [("a".to_owned(), POD, Late::Unwritten("no".to_owned()))]);
}

#[test]
fn shares_alike_are_counted() {
    let mut all = Handshakes::new(3);
    all.ask("a", POD, vec![need(Part::Mps(1024))], 0);
    all.writes(0);
    all.written("a", 1, Ok(()), 0);
    let shares = |count| report(3, 1, None).saying(0, vec![(Part::Mps(1024), Condition::Ready); count]);
    assert!(all.reported("a", &shares(1), &|_| Often { all: 2, alike: 2 }).is_empty(), "that is another's");
    assert_eq!(all.reported("a", &shares(2), &|_| Often { all: 2, alike: 2 }), [(POD, Outcome::Ready)]);
}

#[test]
fn who_waited_for_a_node_that_is_gone_is_told_of() {
    let mut all = asked();
    all.ask("a", OTHER, Vec::new(), 0);
    all.forget("a", POD);
    assert_eq!(all.gone("a"), [OTHER]);
    assert!(all.writes(0).is_empty() && all.gone("a").is_empty() && !all.is_busy());
}
