//! Numbers of revisions.

use std::sync::atomic::{AtomicU32, Ordering};

use partita_core::policy::Revision;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A number that no other policy of this process has, native or not: answers are cached under it.
pub(crate) fn next() -> Revision {
    Revision(NEXT.fetch_add(1, Ordering::Relaxed))
}
