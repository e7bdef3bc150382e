//! The S3 clients, with time limits on everything and no retries of their own beyond the configured few.
//!
//! [`accounts`] knows which client a bucket is reached with; [`options`] how outputs are stored; [`error`] says what an
//! answer means to feedmill; [`probe`] finds out at start whether the servers keep their promises.

mod accounts;
pub mod error;
pub mod options;
pub mod probe;

pub use accounts::{Accounts, can_copy};
pub use error::{Failure, S3Error};
