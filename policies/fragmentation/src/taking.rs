//! What a pod takes of the GPUs of a node.

use std::ops::Range;

use partita_sdk::Question;

/// What is free on the GPUs of a node (rows `rows`) once the pod took its share of `first` and, if it asks for several, of the tightest
/// others: that is how the host grants them.
pub(crate) fn left(question: &Question<'_>, rows: Range<usize>, first: usize) -> Vec<u32> {
    let (view, asked) = (&question.view, question.asked());
    let mut free = view.gpus.free[rows.clone()].to_vec();
    let first = first - rows.start;
    let fits = |index: &usize| {
        let row = rows.start + index;
        *index != first && view.gpus.mig[row] == 0 && view.gpus.free[row] >= asked.milli() && asked.accepts(view.gpus.model[row])
    };
    let mut others: Vec<usize> = (0..free.len()).filter(fits).collect();
    others.sort_by_key(|&index| free[index]);
    for index in others.into_iter().take(asked.count().saturating_sub(1) as usize).chain([first]) {
        free[index] = free[index].saturating_sub(asked.milli());
    }
    free
}
