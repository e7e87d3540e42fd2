//! Places at which a test ends this process as `kill -9` would, to see that nothing is lost.

/// Every place, in the order in which a partition is made and destroyed.
pub const POINTS: &[&str] = &[
    "create-noted",
    "create-instance",
    "create-compute",
    "create-seen",
    "create-done",
    "destroy-noted",
    "destroy-compute",
    "destroy-instance",
    "destroy-seen",
    "destroy-done",
    "checkpoint-written",
    "checkpoint-renamed",
];

/// Every place, in the order in which a GPU is switched, shared by MPS, sliced and given back.
pub const SHARING_POINTS: &[&str] = &[
    "mode-noted",
    "mode-set",
    "share-noted",
    "share-exclusive",
    "share-started",
    "share-limited",
    "unshare-begun",
    "unshare-ended",
    "unshare-swept",
    "unshare-mode",
    "slice-noted",
    "slice-set",
];

/// In a debug build ends the process if `PARTITA_FAULT` names this place, as `PLACE` or `PLACE:N` for the Nth time that it is passed.
#[cfg(debug_assertions)]
pub(crate) fn point(place: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    debug_assert!(POINTS.iter().chain(SHARING_POINTS).any(|one| *one == place), "{place} is missing in the list");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PARTITA_FAULT").ok()?;
        let (place, count) = text.split_once(':').map_or((text.as_str(), 1), |(place, count)| (place, count.parse().unwrap_or(1)));
        Some((place.to_owned(), count))
    });
    if let Some((wanted, count)) = wanted
        && wanted == place
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        tracing::error!("ends here, as PARTITA_FAULT={place}:{count} wants");
        std::process::abort();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
