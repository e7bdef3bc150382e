//! The numbers of an audit, and how far one under way is.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use super::verdict::Kind;

/// What an audit came to. Each listed object is one of `converted`, `discarded`, `gone`, or has one finding; beside these,
/// findings are about outputs that no state names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Objects below the prefix that a feed takes.
    pub listed: u64,
    /// Objects below the prefix that no feed takes.
    pub not_taken: u64,
    /// Listed objects whose version is converted, with the output that was written.
    pub converted: u64,
    /// Listed objects whose version was given up by an operator.
    pub discarded: u64,
    /// Listed objects that were gone when they were looked at again.
    pub gone: u64,
    pub findings: BTreeMap<Kind, u64>,
    /// States of objects that are not listed: their outputs are kept.
    pub states_without_source: u64,
    /// Objects listed where the outputs lie.
    pub outputs: u64,
    /// Outputs of earlier versions, and of sources that are gone and forgotten.
    pub outputs_kept: u64,
    /// Outputs whose bytes were read and compared.
    pub outputs_compared: u64,
    pub bytes_compared: u64,
}

impl Summary {
    pub fn count(&mut self, kind: Kind) {
        *self.findings.entry(kind).or_default() += 1;
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.findings.get(&kind).copied().unwrap_or(0)
    }

    /// Findings of all kinds.
    pub fn found(&self) -> u64 {
        self.findings.values().sum()
    }

    /// Whether something is off; with `strict` an open dead letter is.
    pub fn is_off(&self, strict: bool) -> bool {
        let mut found = self.findings.iter().filter(|(_, count)| **count > 0);
        found.any(|(kind, _)| kind.is_off() || strict && *kind == Kind::DeadLettered)
    }
}

/// How far an audit is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<&'static str>,
    done: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    pub fn begin(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.done.store(0, Relaxed);
    }

    pub fn advance(&self, done: usize) {
        self.done.fetch_add(done as u64, Relaxed);
    }

    pub fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// `listing the sources: 12000`.
    pub fn line(&self) -> String {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = format!("{phase}: {}", self.done.load(Relaxed));
        let bytes = self.bytes();
        if bytes > 0 {
            line.push_str(&format!(", {} MB of outputs read", bytes / 1_000_000));
        }
        line
    }
}
