//! Highlights and tables.

use maud::{Markup, html};

use super::{
    fills,
    format::{count, duration, micros, percent, thousands},
};
use crate::{Outcome, Run, Unplaceable, metrics::Unplaced, openb::allocation_at};

/// Colours of policies in the style sheet; more policies start again, with another dash.
pub(super) const COLOURS: usize = 8;

/// A measure that can be compared.
struct Measure {
    name: &'static str,
    help: &'static str,
    value: fn(&Run) -> f64,
    show: fn(f64) -> String,
    /// Which end is better, if either is.
    better: Option<Better>,
}

#[derive(Clone, Copy, PartialEq)]
enum Better {
    High,
    Low,
}

/// A count that came as a measure.
fn whole(value: f64) -> String {
    thousands(&format!("{value:.0}"))
}

const PLACED: Measure = Measure {
    name: "Placed",
    help: "Pods that were placed",
    value: |run| run.result.placed as f64,
    show: whole,
    better: Some(Better::High),
};
const DROPPED: Measure = Measure {
    name: "Dropped",
    help: "Pods that did not fit when they came",
    value: |run| run.result.dropped as f64,
    show: whole,
    better: Some(Better::Low),
};
const PENDING: Measure = Measure {
    name: "Pending",
    help: "Pods that still wait at the end",
    value: |run| run.result.pending as f64,
    show: whole,
    better: Some(Better::Low),
};
const WAIT_MEAN: Measure = Measure {
    name: "Wait, mean",
    help: "Mean wait of a pod",
    value: |run| run.result.waits.mean_s,
    show: duration,
    better: Some(Better::Low),
};
const WAIT_P99: Measure = Measure {
    name: "Wait, p99",
    help: "99 of 100 pods waited no longer",
    value: |run| run.result.waits.p99_s,
    show: duration,
    better: Some(Better::Low),
};
const ALLOCATED: Measure = Measure {
    name: "Allocated",
    help: "Mean share of all GPUs in use",
    value: |run| run.result.allocated_mean,
    show: percent,
    better: Some(Better::High),
};
const ALLOCATED_FULL: Measure = Measure {
    name: "Allocated at 100 %",
    help: "Share of all GPUs in use when as much as there is has been asked for; at the end, if it never was",
    value: |run| allocation_at(&run.result.allocation, 100).unwrap_or(run.result.allocated_end),
    show: |value| format!("{value:.2} %"),
    better: Some(Better::High),
};
const ALLOCATED_END: Measure = Measure {
    name: "Allocated at the end",
    help: "Share of all GPUs in use after the last arrival",
    value: |run| run.result.allocated_end,
    show: |value| format!("{value:.2} %"),
    better: Some(Better::High),
};
const FRAGMENTATION: Measure = Measure {
    name: "Fragmentation",
    help: "Free GPU that the expected mix cannot use, mean",
    value: |run| run.result.fragmentation_mean,
    show: percent,
    better: Some(Better::Low),
};
const DECISIONS: Measure = Measure {
    name: "Decisions",
    help: "Pods placed, and demands found to have no place",
    value: |run| run.result.decisions as f64,
    show: whole,
    better: None,
};
const TIME_P50: Measure = Measure {
    name: "Decision, p50",
    help: "Median wall-clock time of a decision",
    value: |run| run.timing.p50_us,
    show: micros,
    better: Some(Better::Low),
};
const TIME_P99: Measure = Measure {
    name: "Decision, p99",
    help: "99 of 100 decisions were no slower",
    value: |run| run.timing.p99_us,
    show: micros,
    better: Some(Better::Low),
};
const FAILURES: Measure = Measure {
    name: "Policy failures",
    help: "Questions that a policy did not answer",
    value: failures_of,
    show: whole,
    better: Some(Better::Low),
};

fn failures_of(run: &Run) -> f64 {
    run.result.failures.iter().map(|failure| failure.count).sum::<usize>() as f64
}

fn filling(outcome: &Outcome) -> bool {
    outcome.runs.iter().any(|run| fills(&run.result))
}

/// The few figures that a reader came for, each with the policy that did best.
pub(super) fn highlights(outcome: &Outcome) -> Markup {
    let measures: &[(&str, Measure)] = if filling(outcome) {
        &[("Most allocated at 100 % asked", ALLOCATED_FULL), ("Most pods placed", PLACED), ("Least fragmentation", FRAGMENTATION)]
    } else {
        &[("Shortest mean wait", WAIT_MEAN), ("Most GPU allocated", ALLOCATED), ("Least fragmentation", FRAGMENTATION)]
    };
    let alone = outcome.runs.len() == 1;
    html! {
        div.tiles {
            @for (label, measure) in measures {
                @if let Some((row, best)) = best_run(outcome, measure) {
                    div.tile {
                        p.label { (if alone { measure.name } else { label }) }
                        p.figure { ((measure.show)((measure.value)(best))) }
                        @if !alone {
                            p.who { span.dot.{ "p" (row % COLOURS) } {} (best.policy) (ties(outcome, measure, best)) }
                        }
                    }
                }
            }
        }
    }
}

fn best_run<'a>(outcome: &'a Outcome, measure: &Measure) -> Option<(usize, &'a Run)> {
    let value = |run: &Run| (measure.value)(run);
    let better = |a: f64, b: f64| if measure.better == Some(Better::Low) { a < b } else { a > b };
    outcome.runs.iter().enumerate().reduce(|best, run| if better(value(run.1), value(best.1)) { run } else { best })
}

/// How many others show the same figure.
fn ties(outcome: &Outcome, measure: &Measure, best: &Run) -> String {
    let shown = |run: &Run| (measure.show)((measure.value)(run));
    match outcome.runs.iter().filter(|run| shown(run) == shown(best)).count() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    }
}

/// Every policy and measure.
pub(super) fn comparison(outcome: &Outcome) -> Markup {
    let mut measures = vec![PLACED];
    match outcome.facts.options.unplaceable {
        Unplaceable::Drop if filling(outcome) => measures.extend([DROPPED, ALLOCATED_FULL, ALLOCATED_END]),
        Unplaceable::Drop => measures.extend([DROPPED, ALLOCATED]),
        Unplaceable::Wait => measures.extend([PENDING, WAIT_MEAN, WAIT_P99, ALLOCATED]),
    }
    measures.extend([FRAGMENTATION, DECISIONS, TIME_P50, TIME_P99, FAILURES]);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Comparison of policies" {
            table {
                thead { tr { th scope="col" { "Policy" } @for measure in &measures { th.number scope="col" title=(measure.help) { (measure.name) } } } }
                tbody {
                    @for (row, run) in outcome.runs.iter().enumerate() {
                        tr {
                            th scope="row" title=(run.policy) { span.dot.{ "p" (row % COLOURS) } {} (run.policy) }
                            @for measure in &measures { td.number.best[is_best(outcome, measure, run)] { ((measure.show)((measure.value)(run))) } }
                        }
                    }
                }
            }
        }
        @if outcome.runs.len() > 1 { p.hint { "The best figure of a column is in bold, where policies differ." } }
    }
}

/// Whether the run shows the best figure of a measure in which not all are alike.
fn is_best(outcome: &Outcome, measure: &Measure, run: &Run) -> bool {
    let shown = |run: &Run| (measure.show)((measure.value)(run));
    let Some((_, best)) = best_run(outcome, measure) else { return false };
    let differ = outcome.runs.iter().any(|other| shown(other) != shown(best));
    measure.better.is_some() && differ && shown(run) == shown(best)
}

/// Reasons why pods were not placed, each with the rows of the policies under which as many pods were not placed for it.
fn reasons(outcome: &Outcome) -> Vec<(&Unplaced, Vec<usize>)> {
    let mut reasons: Vec<(&Unplaced, Vec<usize>)> = Vec::new();
    for (row, run) in outcome.runs.iter().enumerate() {
        for group in &run.result.unplaced {
            match reasons.iter_mut().find(|(known, _)| *known == group) {
                Some((_, rows)) => rows.push(row),
                None => reasons.push((group, vec![row])),
            }
        }
    }
    reasons
}

/// Why pods were not placed.
pub(super) fn unplaced(outcome: &Outcome) -> Markup {
    let reasons = reasons(outcome);
    html! {
        section aria-labelledby="unplaced" {
            h2 id="unplaced" { "Pods not placed" }
            @if reasons.is_empty() {
                p.hint { "Every pod was placed." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Pods not placed" {
                    table {
                        thead { tr { th scope="col" { "Policy" } th.number scope="col" { "Pods" } th scope="col" { "Short of" } th scope="col" { "For example" } th scope="col" { "Why" } } }
                        tbody {
                            @for (group, rows) in &reasons {
                                tr {
                                    th scope="row" { (policies(outcome, rows)) }
                                    td.number { (count(group.pods)) }
                                    td.short { (group.short) @if group.never { " " span.tag { "never fits" } } }
                                    td.name { (group.example) }
                                    td.reason { (group.reason) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The policies of `rows`, by name, or that it is all of them.
fn policies(outcome: &Outcome, rows: &[usize]) -> Markup {
    html! {
        @if rows.len() > 1 && rows.len() == outcome.runs.len() {
            "all policies"
        } @else {
            @for row in rows { div { span.dot.{ "p" (row % COLOURS) } {} (outcome.runs[*row].policy) } }
        }
    }
}

/// Why policies were passed over.
pub(super) fn failures(outcome: &Outcome) -> Markup {
    if outcome.runs.iter().all(|run| run.result.failures.is_empty()) {
        return html! {};
    }
    html! {
        section aria-labelledby="failures" {
            h2 id="failures" { "Policy failures" }
            p.hint { "Questions that a policy did not answer. The next policy of its chain answered instead." }
            div.scroll tabindex="0" role="region" aria-label="Policy failures" {
                table {
                    thead { tr { th scope="col" { "Policy" } th scope="col" { "Cause" } th.number scope="col" { "Times" } th scope="col" { "First message" } } }
                    tbody {
                        @for (row, run) in outcome.runs.iter().enumerate() {
                            @for failure in &run.result.failures {
                                tr {
                                    th scope="row" title=(run.policy) { span.dot.{ "p" (row % COLOURS) } {} (run.policy) }
                                    td { (failure.cause) }
                                    td.number { (count(failure.count)) }
                                    td.reason { (failure.example) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
