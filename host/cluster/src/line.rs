//! What is to be done, in a line: however slow the API server is, there are as many tasks as there are calls under way, and what waits is the
//! latest word of each kind about each object.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// A line in which one thing of each key waits, and one is under way.
#[derive(Debug)]
pub(crate) struct Line<K, T> {
    /// Workers at most.
    limit: usize,
    state: Mutex<State<K, T>>,
}

#[derive(Debug)]
struct State<K, T> {
    /// By key, with the time since which it waits.
    waiting: HashMap<K, (T, Instant)>,
    /// Keys of what waits and may begin, in the order in which they came.
    order: VecDeque<K>,
    /// Keys of what is under way: the next of such a key begins after it.
    busy: HashSet<K>,
    workers: usize,
}

impl<K: Clone + Eq + Hash, T> Line<K, T> {
    /// An empty line for so many workers.
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { waiting: HashMap::new(), order: VecDeque::new(), busy: HashSet::new(), workers: 0 };
        Self { limit, state: Mutex::new(state) }
    }

    /// Lets something wait, in the place of what waits under its key. True if one more worker is to begin.
    pub(crate) fn put(&self, key: K, what: T) -> bool {
        let mut state = self.lock();
        let first = state.waiting.insert(key.clone(), (what, Instant::now())).is_none();
        if first && !state.busy.contains(&key) {
            state.order.push_back(key);
        }
        let more = state.workers < self.limit.min(state.order.len() + state.busy.len());
        state.workers += usize::from(more);
        more
    }

    /// What a worker does next, after what it has just `done`, and since when that waits; none if the worker is to end.
    pub(crate) fn take(&self, done: Option<K>) -> Option<(K, T, Instant)> {
        let mut state = self.lock();
        if let Some(key) = done {
            state.busy.remove(&key);
            if state.waiting.contains_key(&key) {
                state.order.push_back(key);
            }
        }
        let next = state.order.pop_front().and_then(|key| Some((state.waiting.remove(&key)?, key)));
        let Some(((what, since), key)) = next else {
            state.workers -= 1;
            return None;
        };
        state.busy.insert(key.clone());
        Some((key, what, since))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(line: &Line<char, u32>, done: Option<char>) -> Option<(char, u32)> {
        line.take(done).map(|(key, what, _)| (key, what))
    }

    #[test]
    fn of_each_key_the_latest_waits_and_one_is_under_way() {
        let line = Line::new(2);
        assert!(line.put('a', 1), "the first worker");
        assert_eq!(next(&line, None), Some(('a', 1)));
        assert!(line.put('b', 1), "the second");
        assert!(!line.put('c', 1) && !line.put('b', 2) && !line.put('a', 2));
        assert_eq!(line.len(), 3);
        assert_eq!(next(&line, None), Some(('b', 2)), "in the place of the earlier");
        assert_eq!(next(&line, Some('b')), Some(('c', 1)));
        assert_eq!(next(&line, Some('c')), None, "the other a is under way");
        assert_eq!(next(&line, Some('a')), Some(('a', 2)));
        assert_eq!(next(&line, Some('a')), None);
        assert_eq!(line.len(), 0);
        assert!(line.put('a', 3), "workers begin anew");
        assert_eq!(next(&line, None), Some(('a', 3)));
    }

    #[test]
    fn there_are_no_more_workers_than_the_line_has() {
        let line = Line::new(3);
        let begun = (0..1000).filter(|&row| line.put(row, ())).count();
        assert_eq!((begun, line.len()), (3, 1000));
    }
}
