//! What a policy writes to its log: bounded, made safe to print, and the last line kept for the detail of a fault.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bindings::Level;
use crate::limits::{LOG_BURST, LOG_LINE_BYTES, LOG_LINES};
use crate::text::{clean, prefix};

/// The log of one revision, shared by its instances, so that a flood is bounded over calls and not in each alone.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    policy: Arc<str>,
    /// Lines of the call under way.
    lines: u32,
    /// Lines that may still be written; grows by one a call.
    allowance: u32,
    written: u64,
    dropped: u64,
    /// The last line of the call under way, written or dropped.
    last: Option<String>,
}

impl Log {
    pub(crate) fn new(policy: Arc<str>) -> Self {
        Self(Arc::new(Mutex::new(State { policy, lines: 0, allowance: LOG_BURST, written: 0, dropped: 0, last: None })))
    }

    /// A new call begins.
    pub(crate) fn begin(&self) {
        self.with(|state| {
            state.lines = 0;
            state.last = None;
            state.allowance = (state.allowance + 1).min(LOG_BURST);
        });
    }

    /// One line of the policy.
    pub(crate) fn write(&self, level: Level, message: &str) {
        let line = clean(prefix(message, LOG_LINE_BYTES), LOG_LINE_BYTES);
        self.with(|state| {
            state.lines = state.lines.saturating_add(1);
            if state.lines > LOG_LINES || state.allowance == 0 {
                state.dropped += 1;
            } else {
                state.allowance -= 1;
                state.written += 1;
                emit(&state.policy, level, &line);
            }
            state.last = Some(line);
        });
    }

    /// The last line of the call under way.
    pub(crate) fn last(&self) -> Option<String> {
        self.with(|state| state.last.clone())
    }

    /// Lines written and lines dropped since the revision was loaded.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.with(|state| (state.written, state.dropped))
    }

    fn with<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        // Nothing here panics while it holds the lock, and numbers would stay usable if it did.
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn emit(policy: &str, level: Level, line: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "partita::policy", policy, "{line}"),
        Level::Info => tracing::info!(target: "partita::policy", policy, "{line}"),
        Level::Warn => tracing::warn!(target: "partita::policy", policy, "{line}"),
        Level::Error => tracing::error!(target: "partita::policy", policy, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_writes_so_many_lines_and_the_rest_are_counted() {
        let log = Log::new("noisy".into());
        log.begin();
        for line in 0..100 {
            log.write(Level::Info, &format!("line {line}\x1b[2J"));
        }
        assert_eq!(log.totals(), (u64::from(LOG_LINES), 100 - u64::from(LOG_LINES)));
        assert_eq!(log.last().as_deref(), Some(r"line 99\u{1b}[2J"));
        log.begin();
        assert_eq!(log.last(), None);
    }

    #[test]
    fn a_policy_that_floods_every_call_is_held_to_one_line_a_call() {
        let log = Log::new("noisy".into());
        for _ in 0..1000 {
            log.begin();
            for _ in 0..LOG_LINES {
                log.write(Level::Error, "again");
            }
        }
        assert_eq!(log.totals().0, u64::from(LOG_BURST) + 999);
    }

    #[test]
    fn a_long_line_is_cut() {
        let log = Log::new("long".into());
        log.begin();
        log.write(Level::Debug, &"ä".repeat(1000));
        assert_eq!(log.last().unwrap().len(), LOG_LINE_BYTES);
    }
}
