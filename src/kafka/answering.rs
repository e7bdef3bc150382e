//! Stages without work: each record is answered as it is read, by the transaction that commits its offset.

use std::{convert::Infallible, sync::Arc};

use super::{Decoded, Finished, GivenUp, Position, RawRecord, Slot, Stage, StateBytes};

/// What such a stage has to say.
pub trait Answering: Send + Sync + 'static {
    /// Reads a record, and answers it. Must not block.
    fn answer(&self, record: &RawRecord) -> Decoded<Infallible>;

    /// As [`Stage::unreadable`].
    fn unreadable(&self, position: Position, value: Option<&[u8]>, reason: &str) -> Finished;
}

/// Makes a [`Stage`] of it: there are no events, no work and no state.
pub struct Answers<A>(pub A);

impl<A: Answering> Stage for Answers<A> {
    type Event = Infallible;
    type State = Infallible;

    fn decode(&self, record: &RawRecord) -> Decoded<Infallible> {
        self.0.answer(record)
    }

    async fn process(
        self: Arc<Self>,
        event: Arc<Infallible>,
        _: Position,
        _: Option<Arc<Infallible>>,
        _: &mut Slot,
    ) -> Finished {
        match *event {}
    }

    fn unreadable(
        &self,
        position: Position,
        _: &[u8],
        value: Option<&[u8]>,
        reason: &str,
    ) -> Finished {
        self.0.unreadable(position, value, reason)
    }

    fn read_state(&self, event: &Infallible, _: &[u8]) -> Result<Infallible, String> {
        match *event {}
    }

    fn give_up(
        &self,
        event: &Infallible,
        _: Position,
        _: Option<Arc<Infallible>>,
        _: GivenUp<'_>,
    ) -> Finished {
        match *event {}
    }

    fn fold(&self, _: Option<&[u8]>) -> Result<Option<StateBytes>, String> {
        Ok(None)
    }
}
