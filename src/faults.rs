//! Faults that tests plant in a debug build, named by the environment variable `FEEDMILL_TEST_FAULT`; a release build has none.
//!
//! A proof that never failed proves nothing: each planted fault breaks one rule of the runtime, and the checker must see it.

/// A rule that can be broken, or a place to crash at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    CrashAfterSend,
    CrashAfterFlush,
    CrashAfterOffsets,
    CrashAfterCommit,
    CrashAfterOutput,
    /// While a file is converted that has `poison` in its key.
    CrashOnPoison,
    /// Between what Kafka has acknowledged and the deletion of the message that told of it.
    CrashBeforeDelete,
    /// Between the copy of a source that is moved and its deletion.
    CrashAfterCopy,
    /// Between the deletion of a source and the commit of the record that tells of it.
    CrashAfterClean,
    /// Offsets follow records that nobody knows the broker to have, and what became of these is not asked.
    SkipFlush,
    /// Offsets are committed before the records that answer them are.
    OffsetsBeforeRecords,
    /// The restore takes the last stable offset for the changelog's end.
    RestoreToStableOffset,
    /// Outputs are written without a condition.
    UnconditionalPut,
    /// Finished offsets above the committed one are forgotten.
    ForgetFinished,
}

impl Fault {
    #[cfg(debug_assertions)]
    fn name(self) -> &'static str {
        match self {
            Self::CrashAfterSend => "crash-after-send",
            Self::CrashAfterFlush => "crash-after-flush",
            Self::CrashAfterOffsets => "crash-after-offsets",
            Self::CrashAfterCommit => "crash-after-commit",
            Self::CrashAfterOutput => "crash-after-output",
            Self::CrashOnPoison => "crash-on-poison",
            Self::CrashBeforeDelete => "crash-before-delete",
            Self::CrashAfterCopy => "crash-after-copy",
            Self::CrashAfterClean => "crash-after-clean",
            Self::SkipFlush => "skip-flush",
            Self::OffsetsBeforeRecords => "offsets-before-records",
            Self::RestoreToStableOffset => "restore-to-stable-offset",
            Self::UnconditionalPut => "unconditional-put",
            Self::ForgetFinished => "forget-finished",
        }
    }
}

/// Whether the environment asks for this fault; it may name several, separated by commas.
#[cfg(debug_assertions)]
pub fn planted(fault: Fault) -> bool {
    use std::sync::LazyLock;
    static PLANTED: LazyLock<String> =
        LazyLock::new(|| std::env::var("FEEDMILL_TEST_FAULT").unwrap_or_default());
    PLANTED.split(',').any(|name| name == fault.name())
}

#[cfg(not(debug_assertions))]
pub fn planted(_: Fault) -> bool {
    false
}

/// Ends the process like a SIGKILL would, if the environment asks for it here.
pub fn crash_at(fault: Fault) {
    if planted(fault) {
        eprintln!("crashing as asked: {fault:?}");
        std::process::abort();
    }
}
