//! The `fields` mapping: a tree of names to look for while a record is parsed, and the shape of the object to write after it.
//!
//! `compile` turns the configuration into both. [`Capture`] keeps what is found, `write` puts it into the output's order.
//! Every `each` is a *scope*: each element it finds gets a frame of slots of its own, and the record is the outermost scope with one frame.

mod capture;
mod compile;
mod date;
mod value;
mod write;

pub use capture::{Capture, Content};
pub use compile::{FieldError, is_path_name};
pub use date::{DateFormat, DateFormatError};
pub use value::TypeError;

use super::Source;
use super::names::NameTest;
use value::Kind;

/// A compiled mapping.
#[derive(Debug)]
pub struct Mapping {
    /// The tree of names; the first one is the record.
    steps: Vec<Step>,
    scopes: Vec<Scope>,
    object: Object,
}

/// An element somebody asked for, or one on the way to it.
#[derive(Debug)]
struct Step {
    name: NameTest,
    children: Vec<StepId>,
    attributes: Vec<(NameTest, Target)>,
    /// Where the element's text goes.
    values: Vec<Target>,
    /// The lists that get a new frame here.
    opens: Vec<ScopeId>,
}

/// Index into the steps of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepId(usize);

/// Index into the scopes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScopeId(usize);

/// The record.
const RECORD_STEP: StepId = StepId(0);
const RECORD_SCOPE: ScopeId = ScopeId(0);

/// A slot in the frame that is open in a scope.
#[derive(Clone, Copy, Debug)]
struct Target {
    scope: ScopeId,
    slot: usize,
    /// Of several values the last one stays, not the first.
    takes_last: bool,
}

/// Where a scalar comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Slot(usize),
    /// Known before the file is read.
    Source(fn(&Source) -> Option<&str>),
}

/// The elements of one `each`, or the record.
#[derive(Debug)]
struct Scope {
    /// The slot that holds the list of frames; none for the record.
    list: Option<Target>,
    /// Slots of a frame, the link to the next frame included.
    slots: usize,
}

/// The slot of a frame that links to the next frame of its list.
const LINK: usize = 0;

/// What is written, slots being those of the frame at hand.
#[derive(Debug)]
enum Output {
    Scalar(Scalar),
    /// JSON as it stands.
    Constant(String),
    Object(Object),
    List {
        slot: usize,
        item: Box<Output>,
    },
    Joined(Joined),
    Keyed(Keyed),
}

/// Keys as JSON, with the brace or comma before and the colon after, in the order of the output. There is one at least.
type Object = Vec<(String, Output)>;

#[derive(Debug)]
struct Scalar {
    origin: Origin,
    /// Relative to the record, for rejections.
    path: String,
    kind: Option<Kind>,
    /// JSON for a missing value.
    default: String,
    is_required: bool,
    trim: bool,
}

#[derive(Debug)]
struct Keyed {
    slot: usize,
    /// Relative to the record, for rejections.
    path: String,
    key: Template,
    value: Scalar,
    fill_gaps: bool,
}

/// The texts of a list as one; `value` says what each is, and what is missing when there is none.
#[derive(Debug)]
struct Joined {
    slot: usize,
    value: Scalar,
    separator: String,
}

/// Text with values in it: each piece is literal text and, but for the last, where the value after it comes from.
#[derive(Debug)]
struct Template {
    pieces: Vec<(String, Origin)>,
    tail: String,
}

impl Mapping {
    fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }
}
