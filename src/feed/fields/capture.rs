//! What a record has of the values asked for, found while it is parsed.

use std::mem::size_of;
use std::ops::Range;

use super::{LINK, Mapping, Origin, RECORD_STEP, ScopeId, StepId, Target};
use crate::feed::Source;
use crate::feed::container::too_large;
use crate::feed::limits::Limits;
use crate::feed::names::{NameTest, Namespace};
use crate::feed::reject::{ConvertError, Rejection};
use crate::feed::write::Record;
use crate::feed::xml::{self, Element};

/// A place in one of the text buffers; 32 bits suffice by [`MAX_RECORD_BYTES`](crate::feed::limits::MAX_RECORD_BYTES).
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// The first slot of a frame.
pub(super) type Frame = u32;

#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    Empty,
    Text(Span),
    /// A JSON number or boolean, as it stands.
    Literal(Span),
    Attribute(Span),
    Frames {
        first: Frame,
        last: Frame,
    },
    Link(Frame),
}

/// What an element turned out to have for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The text since it was entered.
    Text,
    /// The same, and it is a JSON number or boolean.
    Literal,
    Nothing,
}

/// The values of one record. Its buffers are reused from record to record.
pub struct Capture<'p> {
    mapping: &'p Mapping,
    source: &'p Source,
    limits: &'p Limits,
    slots: Vec<Slot>,
    /// The open frame of each scope.
    frames: Vec<Frame>,
    /// Text of elements. An element's value is all text inside it, so it is one range of this buffer whatever lies within; attributes
    /// are kept apart for that.
    text: String,
    attributes: String,
    open: Vec<Open>,
    /// How many open elements want their text.
    listening: usize,
    /// Open XML elements, those nobody asked for included.
    depth: usize,
}

struct Open {
    step: StepId,
    text_start: u32,
    is_listening: bool,
}

impl<'p> Capture<'p> {
    pub fn new(mapping: &'p Mapping, source: &'p Source, limits: &'p Limits) -> Self {
        Self {
            mapping,
            source,
            limits,
            slots: Vec::new(),
            frames: vec![0; mapping.scopes.len()],
            text: String::new(),
            attributes: String::new(),
            open: Vec::new(),
            listening: 0,
            depth: 0,
        }
    }

    /// Begins a record.
    pub fn reset(&mut self) {
        self.slots.clear();
        self.slots.resize(self.mapping.scopes[0].slots, Slot::Empty);
        self.text.clear();
        self.attributes.clear();
        self.open.clear();
        self.listening = 0;
        self.depth = 0;
    }

    /// What is asked for inside the innermost open element, or the record itself when none is open.
    #[inline]
    pub fn find(&self, is: impl Fn(&NameTest) -> bool) -> Option<StepId> {
        let mapping = self.mapping;
        match self.open.last() {
            None => Some(RECORD_STEP),
            Some(open) => {
                let mut children = mapping.step(open.step).children.iter().copied();
                children.find(|&child| is(&mapping.step(child).name))
            }
        }
    }

    #[inline]
    fn find_element(&self, element: Element<'_>) -> Option<StepId> {
        let (name, namespace) = (element.name(), element.namespace());
        self.find(|test| test.matches(name, namespace))
    }

    pub fn find_key(&self, key: &str) -> Option<StepId> {
        self.find(|test| test.matches(key, Namespace::Undeclared))
    }

    pub fn enter(&mut self, step: StepId) -> Result<(), Box<Rejection>> {
        let mapping = self.mapping;
        for &scope in &mapping.step(step).opens {
            self.open_frame(scope)?;
        }
        let values = &mapping.step(step).values;
        let is_listening = values
            .iter()
            .any(|&target| target.takes_last || matches!(*self.slot_mut(target), Slot::Empty));
        self.listening += usize::from(is_listening);
        self.open.push(Open {
            step,
            text_start: self.text.len() as u32,
            is_listening,
        });
        Ok(())
    }

    /// Whether the innermost open element is asked for a value of its own.
    pub fn wants_value(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_listening)
    }

    /// For a caller that produces text piece by piece.
    pub fn text_mut(&mut self) -> &mut String {
        &mut self.text
    }

    pub fn leave(&mut self, content: Content) {
        let Some(open) = self.open.pop() else { return };
        if !open.is_listening {
            return;
        }
        self.listening -= 1;
        let span = Span {
            start: open.text_start,
            end: self.text.len() as u32,
        };
        let value = match content {
            Content::Text => Slot::Text(span),
            Content::Literal => Slot::Literal(span),
            Content::Nothing => return,
        };
        let mapping = self.mapping;
        for &target in &mapping.step(open.step).values {
            self.fill(target, value);
        }
    }

    /// Holds all text of the record at once, for [`Self::take`].
    pub fn hold(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
    }

    /// Enters `step` and leaves it with a piece of the text it holds, all at once.
    #[inline]
    pub fn take(&mut self, step: StepId, text: Range<usize>) -> Result<(), Box<Rejection>> {
        let step = self.mapping.step(step);
        for &scope in &step.opens {
            self.open_frame(scope)?;
        }
        let span = Span {
            start: text.start as u32,
            end: text.end as u32,
        };
        for &target in &step.values {
            self.fill(target, Slot::Text(span));
        }
        Ok(())
    }

    #[inline]
    fn fill(&mut self, target: Target, value: Slot) {
        let slot = self.slot_mut(target);
        if target.takes_last || matches!(slot, Slot::Empty) {
            *slot = value;
        }
    }

    #[inline]
    fn slot_mut(&mut self, target: Target) -> &mut Slot {
        &mut self.slots[self.frames[target.scope.0] as usize + target.slot]
    }

    /// Appends an empty frame to the list of `scope`.
    fn open_frame(&mut self, scope: ScopeId) -> Result<(), Box<Rejection>> {
        let layout = &self.mapping.scopes[scope.0];
        let frame = self.slots.len() as Frame;
        self.slots
            .resize(self.slots.len() + layout.slots, Slot::Empty);
        // Frames are charged against the record's limit: they may be larger than the elements they stand for.
        if self.slots.len() * size_of::<Slot>() > self.limits.record_bytes {
            return Err(too_large(self.limits));
        }
        if let Some(list) = layout.list {
            let slot = self.slot_mut(list);
            if let Slot::Frames { first, last } = *slot {
                *slot = Slot::Frames { first, last: frame };
                self.slots[last as usize + LINK] = Slot::Link(frame);
            } else {
                *slot = Slot::Frames {
                    first: frame,
                    last: frame,
                };
            }
        }
        self.frames[scope.0] = frame;
        Ok(())
    }

    fn take_attributes(
        &mut self,
        step: StepId,
        element: Element<'_>,
    ) -> Result<(), Box<Rejection>> {
        let wanted = &self.mapping.step(step).attributes;
        if wanted.is_empty() {
            return Ok(());
        }
        for attribute in element.attributes() {
            let (name, value) = attribute?;
            let namespace = element.scopes.of_attribute(name);
            for (_, target) in wanted
                .iter()
                .filter(|(test, _)| test.matches(name, namespace))
            {
                let start = self.attributes.len() as u32;
                self.attributes.push_str(&value);
                let end = self.attributes.len() as u32;
                self.fill(*target, Slot::Attribute(Span { start, end }));
            }
        }
        Ok(())
    }

    pub(super) fn mapping(&self) -> &'p Mapping {
        self.mapping
    }

    pub(super) fn limits(&self) -> &'p Limits {
        self.limits
    }

    #[inline]
    pub(super) fn slot(&self, frame: Frame, slot: usize) -> Slot {
        self.slots[frame as usize + slot]
    }

    /// The frames of the list in a slot, in the order of the document.
    pub(super) fn frames(&self, frame: Frame, slot: usize) -> impl Iterator<Item = Frame> {
        let mut next = match self.slot(frame, slot) {
            Slot::Frames { first, .. } => Some(first),
            _ => None,
        };
        std::iter::from_fn(move || {
            let frame = next?;
            next = match self.slot(frame, LINK) {
                Slot::Link(next) => Some(next),
                _ => None,
            };
            Some(frame)
        })
    }

    /// The value that comes from `origin`, unless it is missing.
    #[inline]
    pub(super) fn text(&self, frame: Frame, origin: Origin) -> Option<&str> {
        let slot = match origin {
            Origin::Slot(slot) => slot,
            Origin::Source(part) => return part(self.source),
        };
        let (buffer, span) = match self.slot(frame, slot) {
            Slot::Text(span) | Slot::Literal(span) => (&self.text, span),
            Slot::Attribute(span) => (&self.attributes, span),
            Slot::Empty | Slot::Frames { .. } | Slot::Link(_) => return None,
        };
        Some(&buffer[span.start as usize..span.end as usize])
    }
}

impl xml::Mapping for Capture<'_> {
    fn begin(&mut self) {
        self.reset();
    }

    #[inline]
    fn start(&mut self, element: Element<'_>) -> Result<(), ConvertError> {
        // Elements are entered only inside entered ones, so if all open ones are, the parent is.
        if self.open.len() == self.depth
            && let Some(step) = self.find_element(element)
        {
            self.enter(step)?;
            self.take_attributes(step, element)?;
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn text(&mut self, text: &str) -> Result<(), ConvertError> {
        if self.listening > 0 {
            self.text.push_str(text);
        }
        Ok(())
    }

    #[inline]
    fn end(&mut self) {
        if self.open.len() == self.depth {
            self.leave(Content::Text);
        }
        self.depth -= 1;
    }

    fn write(&self, record: &mut Record<'_>) -> Result<(), ConvertError> {
        self.write_record(record)
    }

    fn open_path(&self) -> String {
        let steps = self
            .open
            .iter()
            .skip(1)
            .map(|open| self.mapping.step(open.step).name.as_str());
        steps.collect::<Vec<_>>().join("/")
    }
}
