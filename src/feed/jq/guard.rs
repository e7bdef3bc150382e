//! What ends a program that would not end.
//!
//! jaq has nothing to interrupt a program by, but it looks its program up at every step, in a table that we hand out; there the guard
//! looks at the clock and at the stack, and ends the program by unwinding. A native function that takes long is not stopped by this:
//! for those, programs run on a thread that can be left behind.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use jaq_core::data::HasLut;
use jaq_core::{DataT, Lut};
use jaq_json::Val;

/// The stack of a thread that programs run on. It is memory only as far as it is used.
pub const STACK_BYTES: usize = 256 << 20;

/// A program may use this much of it; the rest is for natives, and for unwinding.
const USABLE_BYTES: usize = 192 << 20;

/// Steps between two looks at the clock.
const STEPS: u32 = 256;

/// Why a program was ended.
pub enum Stop {
    Late,
    Deep,
}

/// The bounds of programs on one thread.
pub struct Guard {
    budget: Duration,
    deadline: Cell<Instant>,
    steps: Cell<u32>,
    /// Stacks grow downwards.
    lowest: usize,
}

impl Guard {
    /// For programs that run on this thread, which has [`STACK_BYTES`] of stack, and each for `budget` at most.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            deadline: Cell::new(Instant::now() + budget),
            steps: Cell::new(STEPS),
            lowest: here().saturating_sub(USABLE_BYTES),
        }
    }

    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// A record's time begins.
    pub fn begin(&self) {
        self.deadline.set(Instant::now() + self.budget);
    }

    #[inline]
    fn check(&self) {
        if here() < self.lowest {
            stop(Stop::Deep);
        }
        match self.steps.get().checked_sub(1) {
            Some(left) => self.steps.set(left),
            None => {
                self.steps.set(STEPS);
                if Instant::now() > self.deadline.get() {
                    stop(Stop::Late);
                }
            }
        }
    }
}

/// Where the stack is.
#[inline(always)]
fn here() -> usize {
    let local = 0u8;
    std::ptr::from_ref(std::hint::black_box(&local)).addr()
}

/// Without the panic hook: nobody needs to read about it.
#[cold]
fn stop(stop: Stop) {
    resume_unwind(Box::new(stop))
}

/// The kind of data that programs run with: jaq's values, and a guard beside the program.
pub struct Guarded;

impl Guarded {
    pub fn data<'a>(program: &'a Lut<Self>, guard: &'a Guard) -> Data<'a> {
        Data { program, guard }
    }
}

#[derive(Clone, Copy)]
pub struct Data<'a> {
    program: &'a Lut<Guarded>,
    guard: &'a Guard,
}

impl Data<'_> {
    pub fn check(&self) {
        self.guard.check();
    }
}

impl DataT for Guarded {
    type V<'a> = Val;
    type Data<'a> = Data<'a>;
}

impl<'a> HasLut<'a, Guarded> for Data<'a> {
    #[inline]
    fn lut(&self) -> &'a Lut<Guarded> {
        self.guard.check();
        self.program
    }
}
