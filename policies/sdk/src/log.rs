//! One line to the operator.

/// Severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is off, and the policy goes on.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one line to the policy's log. The host cuts long lines, drops floods and escapes control characters. Natively the line goes to
/// standard error.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    {
        use std::io::Write;
        // A closed standard error must not stop a policy.
        let _ = writeln!(std::io::stderr(), "{level:?}: {message}");
    }
}
