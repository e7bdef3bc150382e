//! Intake: S3 notifications in, ObjectEvents on the events topic out; a notification is acknowledged only after Kafka has.

pub mod notification;
pub mod publish;
pub mod topic;
pub mod webhook;
