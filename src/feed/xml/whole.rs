//! A record converted whole: attributes as `@name`, text as `#text` beside attributes or children and as a plain string without them,
//! repeated elements as arrays.
//!
//! An element is one value or an array by what its own record has: no record waits for another. So that this does not happen in
//! silence, the first repetition of each path that is not declared is a warning.
//!
//! Whether an element is one of several is known only at the end of its parent, so the record is kept until then: as a tape of entries in the
//! order of the document, their text in one buffer. Both are reused from record to record.

use std::mem::size_of;
use std::ops::Range;

use super::{Element, Mapping, text};
use crate::feed::container::too_large;
use crate::feed::limits::Limits;
use crate::feed::names::{NameTest, Namespace};
use crate::feed::reject::{ConvertError, Rejection};
use crate::feed::write::Record;

/// A place in the text buffer; 32 bits suffice by [`MAX_RECORD_BYTES`](crate::feed::limits::MAX_RECORD_BYTES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

/// Index into the tape.
type EntryId = usize;

#[derive(Debug)]
enum Entry {
    Element {
        name: Span,
        /// Declared to be an array even when it is alone.
        is_array: bool,
        /// The entry after its last descendant.
        end: u32,
    },
    Attribute {
        name: Span,
        value: Span,
    },
    Text(Span),
}

pub struct Whole<'p> {
    arrays: &'p [Vec<NameTest>],
    limits: &'p Limits,
    tape: Vec<Entry>,
    buffer: String,
    /// Open elements from the record on, with what their names mean.
    open: Vec<(EntryId, Namespace)>,
    /// Text, CDATA and references that follow each other are one text.
    is_in_text: bool,
}

impl<'p> Whole<'p> {
    pub fn new(arrays: &'p [Vec<NameTest>], limits: &'p Limits) -> Self {
        Self {
            arrays,
            limits,
            tape: Vec::new(),
            buffer: String::new(),
            open: Vec::new(),
            is_in_text: false,
        }
    }

    fn keep(&mut self, text: &str) -> Span {
        let start = self.buffer.len() as u32;
        self.buffer.push_str(text);
        Span {
            start,
            end: self.buffer.len() as u32,
        }
    }

    /// The tape is charged against the record's limit too: many tiny elements are larger here than in the file.
    fn push(&mut self, entry: Entry) -> Result<(), Box<Rejection>> {
        self.tape.push(entry);
        if self.buffer.len() + self.tape.len() * size_of::<Entry>() > self.limits.record_bytes {
            return Err(too_large(self.limits));
        }
        Ok(())
    }

    fn str(&self, span: Span) -> &str {
        &self.buffer[span.start as usize..span.end as usize]
    }

    fn name(&self, id: EntryId) -> &str {
        match &self.tape[id] {
            Entry::Element { name, .. } | Entry::Attribute { name, .. } => self.str(*name),
            Entry::Text(_) => "",
        }
    }

    /// Whether the path of the innermost open element ends in one that is declared.
    fn is_declared_array(&self) -> bool {
        self.arrays.iter().any(|path| {
            path.len() <= self.open.len()
                && path
                    .iter()
                    .rev()
                    .zip(self.open.iter().rev())
                    .all(|(test, (id, namespace))| test.matches(self.name(*id), *namespace))
        })
    }

    /// The entries directly inside an element.
    fn inside(&self, id: EntryId) -> impl Iterator<Item = EntryId> {
        let (mut next, end) = (id + 1, self.end_of(id));
        std::iter::from_fn(move || {
            let id = next;
            (id < end).then(|| {
                next = self.end_of(id);
                id
            })
        })
    }

    fn end_of(&self, id: EntryId) -> EntryId {
        match self.tape[id] {
            Entry::Element { end, .. } => end as usize,
            Entry::Attribute { .. } | Entry::Text(_) => id + 1,
        }
    }
}

impl Mapping for Whole<'_> {
    fn begin(&mut self) {
        self.tape.clear();
        self.buffer.clear();
        self.open.clear();
    }

    fn start(&mut self, element: Element<'_>) -> Result<(), ConvertError> {
        self.is_in_text = false;
        let id = self.tape.len();
        let name = self.keep(element.name());
        self.push(Entry::Element {
            name,
            is_array: false,
            end: 0,
        })?;
        self.open
            .push((id, element.scopes.of_element(element.name())));
        if self.is_declared_array()
            && let Entry::Element { is_array, .. } = &mut self.tape[id]
        {
            *is_array = true;
        }
        for attribute in element.attributes() {
            let (name, value) = attribute?;
            let (name, value) = (self.keep(name), self.keep(&value));
            self.push(Entry::Attribute { name, value })?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), ConvertError> {
        let span = self.keep(text);
        match self.tape.last_mut() {
            Some(Entry::Text(last)) if self.is_in_text => last.end = span.end,
            _ => self.push(Entry::Text(span))?,
        }
        self.is_in_text = true;
        Ok(())
    }

    fn end(&mut self) {
        self.is_in_text = false;
        let after = self.tape.len() as u32;
        if let Some((id, _)) = self.open.pop()
            && let Entry::Element { end, .. } = &mut self.tape[id]
        {
            *end = after;
        }
    }

    fn write(&self, record: &mut Record<'_>) -> Result<(), ConvertError> {
        Writer {
            whole: self,
            record,
            open: Vec::new(),
            children: Vec::new(),
        }
        .element(0)
    }

    fn open_path(&self) -> String {
        let names: Vec<_> = self
            .open
            .iter()
            .skip(1)
            .map(|(id, _)| self.name(*id))
            .collect();
        names.join("/")
    }
}

struct Writer<'a, 'r, 'p> {
    whole: &'a Whole<'p>,
    record: &'a mut Record<'r>,
    /// The elements being written, the record's own left out.
    open: Vec<EntryId>,
    /// Child elements of the elements being written, those of one after those of its parent.
    children: Vec<Child>,
}

#[derive(Clone, Copy)]
struct Child {
    /// The first of the children that share its name.
    leader: EntryId,
    id: EntryId,
}

impl Writer<'_, '_, '_> {
    fn element(&mut self, id: EntryId) -> Result<(), ConvertError> {
        let children = self.push_children(id);
        let has_children = !children.is_empty();
        let inside = &self.whole.tape[id + 1..self.whole.end_of(id)];
        let has_attributes = matches!(inside.first(), Some(Entry::Attribute { .. }));
        if !has_children && !has_attributes {
            return self.text(id);
        }
        self.record.raw("{")?;
        let mut is_first = true;
        self.attributes(id, &mut is_first)?;
        if self.has_text(id, has_children) {
            self.key("", "#text", &mut is_first)?;
            self.text(id)?;
        }
        self.groups(children.clone(), &mut is_first)?;
        self.children.truncate(children.start);
        self.record.raw("}")
    }

    fn attributes(&mut self, id: EntryId, is_first: &mut bool) -> Result<(), ConvertError> {
        let whole = self.whole;
        for entry in &whole.tape[id + 1..whole.end_of(id)] {
            let Entry::Attribute { name, value } = entry else {
                break;
            };
            self.key("@", whole.str(*name), is_first)?;
            self.record.string(whole.str(*value))?;
        }
        Ok(())
    }

    fn groups(&mut self, children: Range<usize>, is_first: &mut bool) -> Result<(), ConvertError> {
        let mut next = children.start;
        while next < children.end {
            let first = self.children[next];
            let group = next..self.end_of_group(next, children.end);
            next = group.end;
            self.key("", self.whole.name(first.id), is_first)?;
            let is_declared = matches!(
                self.whole.tape[first.id],
                Entry::Element { is_array: true, .. }
            );
            if group.len() == 1 && !is_declared {
                self.child(first.id)?;
            } else {
                if !is_declared {
                    let names = self.open.iter().chain([&first.id]);
                    self.record
                        .warn_repeated(names.map(|&id| self.whole.name(id)));
                }
                self.array(group)?;
            }
        }
        Ok(())
    }

    fn array(&mut self, group: Range<usize>) -> Result<(), ConvertError> {
        for (index, at) in group.enumerate() {
            self.record.raw(if index == 0 { "[" } else { "," })?;
            self.child(self.children[at].id)?;
        }
        self.record.raw("]")
    }

    fn child(&mut self, id: EntryId) -> Result<(), ConvertError> {
        self.open.push(id);
        self.element(id)?;
        self.open.pop();
        Ok(())
    }

    /// Adds the child elements of `id`, those of one name together, the names in the order in which they first appear.
    fn push_children(&mut self, id: EntryId) -> Range<usize> {
        let whole = self.whole;
        let start = self.children.len();
        let elements = whole
            .inside(id)
            .filter(|&id| matches!(whole.tape[id], Entry::Element { .. }));
        self.children
            .extend(elements.map(|id| Child { leader: id, id }));
        let children = &mut self.children[start..];
        if children.len() > 1 {
            children.sort_unstable_by(|a, b| {
                whole.name(a.id).cmp(whole.name(b.id)).then(a.id.cmp(&b.id))
            });
            for at in 1..children.len() {
                if whole.name(children[at].id) == whole.name(children[at - 1].id) {
                    children[at].leader = children[at - 1].leader;
                }
            }
            children.sort_unstable_by_key(|child| (child.leader, child.id));
        }
        start..self.children.len()
    }

    fn end_of_group(&self, first: usize, end: usize) -> usize {
        let leader = self.children[first].leader;
        let others = self.children[first..end]
            .iter()
            .position(|child| child.leader != leader);
        others.map_or(end, |count| first + count)
    }

    /// White space between children is layout, not text.
    fn has_text(&self, id: EntryId, has_children: bool) -> bool {
        if has_children {
            self.texts(id).any(|text| !text::is_blank(text))
        } else {
            self.texts(id).any(|text| !text.is_empty())
        }
    }

    fn text(&mut self, id: EntryId) -> Result<(), ConvertError> {
        let whole = self.whole;
        self.record.raw("\"")?;
        for entry in whole.inside(id) {
            if let Entry::Text(span) = whole.tape[entry] {
                self.record.string_part(whole.str(span))?;
            }
        }
        self.record.raw("\"")
    }

    fn texts(&self, id: EntryId) -> impl Iterator<Item = &str> {
        self.whole
            .inside(id)
            .filter_map(|entry| match self.whole.tape[entry] {
                Entry::Text(span) => Some(self.whole.str(span)),
                Entry::Element { .. } | Entry::Attribute { .. } => None,
            })
    }

    fn key(&mut self, prefix: &str, name: &str, is_first: &mut bool) -> Result<(), ConvertError> {
        self.record.raw(if std::mem::take(is_first) {
            "\""
        } else {
            ",\""
        })?;
        self.record.string_part(prefix)?;
        self.record.string_part(name)?;
        self.record.raw("\":")
    }
}
