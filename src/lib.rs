//! feedmill: partners' product files in S3 become JSON, exactly once.
//!
//! ```text
//!  S3 notification                                    one Kafka transaction:
//!        │                                            outcomes + consumed offsets
//!        ▼                                                     │
//!   intake::webhook ──▶ intake::publish ──▶ [events] ──▶ kafka::session ──▶ [results] [objects] [dead-letters]
//!                                                          │       ▲
//!                                                          ▼       │
//!                             input bucket ──▶ convert::settle ──▶ convert::answer
//!                                              (source ─▶ feed ─▶ output) ──▶ output bucket
//! ```
//!
//! In the order of the data:
//!
//! * [`intake`]: notifications of any dialect to events
//! * [`sweep`]: events for what no notification told of
//! * [`audit`]: does every object have its outcome?
//! * [`topics`]: the records on each topic
//! * [`kafka`]: the exactly-once runtime; knows nothing of files
//! * [`convert`]: the stage: an event to an outcome, or to a wait in a retry topic
//! * [`retry`]: the stage that brings back what waited
//! * [`cleanup`]: the stage that deletes, moves or tags sources afterwards
//! * [`feed`]: the conversion engine: bytes to JSON; knows nothing of Kafka and S3
//! * [`s3`]: the client, and what its errors mean
//!
//! Around them: [`config`], [`cli`], [`app`] (starting and ending), [`reload`] (a new configuration without a restart) and
//! [`live`] (what it replaces), [`aws`] (connections and credentials), [`backoff`], [`failure`] (exit codes), [`shutdown`],
//! [`telemetry`], [`object`] (names and ETags), [`faults`] (what tests may break), [`spool`] (bytes on disk for a while),
//! [`unreadable`] (what a stage can't read).

pub mod app;
pub mod audit;
pub mod aws;
pub mod backoff;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod convert;
pub mod failure;
pub mod faults;
pub mod feed;
pub mod intake;
pub mod kafka;
pub mod live;
pub mod object;
pub mod reload;
pub mod retry;
pub mod s3;
pub mod shutdown;
pub mod spool;
pub mod sweep;
pub mod telemetry;
pub mod topics;
pub mod unreadable;
