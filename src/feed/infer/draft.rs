//! Output fields for what was found in the records.
//!
//! What a record has once becomes one flat object, however deep it stands; what it has several times becomes a list. A name is the
//! element's own, with that of the element around it where there is one: `seller/name` is `seller_name`.

use std::collections::BTreeMap;

use super::names::{self, Unique};
use super::tree::{Node, NodeId, Tree};
use super::walk::Namespaces;
use crate::feed::fields::is_path_name;
use crate::feed::spec::ValueSpec;

/// Records in which a key must stand, and always be another one, to be required.
const MIN_REQUIRED: u64 = 20;

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub shape: Shape,
    /// What was seen of it.
    pub note: String,
}

#[derive(Debug)]
pub enum Shape {
    Value(ValueSpec),
    List { each: String, value: ValueSpec },
    Objects { each: String, fields: Vec<Field> },
}

/// The prefixes of the configuration, given out as they are needed.
#[derive(Clone)]
pub struct Prefixes<'a> {
    namespaces: &'a Namespaces,
    /// Prefix and index of the namespace.
    pub used: BTreeMap<String, usize>,
    taken: Unique,
}

impl<'a> Prefixes<'a> {
    pub fn new(namespaces: &'a Namespaces) -> Self {
        Self {
            namespaces,
            used: BTreeMap::new(),
            taken: Unique::default(),
        }
    }

    /// The name of a node as the configuration writes it.
    pub fn name(&mut self, node: &Node) -> String {
        let at = if node.is_attribute { "@" } else { "" };
        let text = node.name().text;
        match node.namespace {
            Some(namespace) => format!("{at}{}:{text}", self.prefix(namespace)),
            None => format!("{at}{text}"),
        }
    }

    pub fn path(&mut self, tree: &Tree, path: &[NodeId]) -> String {
        let names: Vec<_> = path.iter().map(|&id| self.name(tree.node(id))).collect();
        names.join("/")
    }

    fn prefix(&mut self, namespace: usize) -> String {
        if let Some((known, _)) = self.used.iter().find(|(_, used)| **used == namespace) {
            return known.clone();
        }
        let declared = &self.namespaces.list[namespace].prefixes;
        let is_usable = |prefix: &&String| is_path_segment(prefix);
        let first = declared.iter().find(is_usable);
        let prefix = self.taken.take(first.map_or("ns", String::as_str));
        self.used.insert(prefix.clone(), namespace);
        prefix
    }
}

pub struct Drafter<'a, 'n> {
    pub tree: &'a Tree,
    pub prefixes: &'a mut Prefixes<'n>,
    /// Values have JSON's own types, and no text beside them.
    pub is_json: bool,
    /// A column's name is its path, whatever is in it.
    pub is_csv: bool,
    pub record: NodeId,
    /// What no field was made for, each with the reason.
    pub left_out: Vec<String>,
    pub has_key: bool,
}

/// A field that has no name yet.
struct Nameless {
    /// Names from the object to it.
    words: Vec<String>,
    shape: Shape,
    note: String,
}

impl Drafter<'_, '_> {
    /// The fields of the object that each instance of the node becomes.
    pub fn object(&mut self, id: NodeId) -> Vec<Field> {
        let node = self.tree.node(id);
        let mut found = Vec::new();
        if self.has_text(node) || self.inside(node).is_empty() && !self.is_json {
            let value = spec(node, ".".into(), &names::snake_case(node.name().text));
            found.push(Nameless {
                words: Vec::new(),
                note: note(node, node.count),
                shape: Shape::Value(value),
            });
        }
        self.children(id, &mut Vec::new(), node.count, &mut found);
        name(found)
    }

    /// Whether the text of the element is of interest.
    fn has_text(&self, node: &Node) -> bool {
        !self.is_json && (node.values.filled > 0 || node.mixed > 0)
    }

    /// What is looked at inside: of mixed content only the attributes, for the elements are markup.
    fn inside<'t>(&self, node: &'t Node) -> Vec<NodeId>
    where
        Self: 't,
    {
        let is_shown = |id: &NodeId| node.mixed == 0 || self.tree.node(*id).is_attribute;
        let mut inside: Vec<_> = node.children.iter().copied().filter(is_shown).collect();
        inside.sort_by_key(|&id| !self.tree.node(id).is_attribute);
        inside
    }

    /// Adds the fields inside `id`, whose path from the object is `path`; `count` is how many objects there are.
    fn children(
        &mut self,
        id: NodeId,
        path: &mut Vec<NodeId>,
        count: u64,
        found: &mut Vec<Nameless>,
    ) {
        for child in self.inside(self.tree.node(id)) {
            path.push(child);
            let node = self.tree.node(child);
            if !self.is_addressable(node, path.len()) {
                self.leave_out(path, "no path can ask for that name");
            } else if self.tree.is_list(child) {
                self.list(child, path, count, found);
            } else {
                self.single(child, path, count, found);
            }
            path.pop();
        }
    }

    fn single(
        &mut self,
        id: NodeId,
        path: &mut Vec<NodeId>,
        count: u64,
        found: &mut Vec<Nameless>,
    ) {
        let node = self.tree.node(id);
        let is_empty = self.inside(node).is_empty();
        if self.is_json && node.objects > 0 {
            if node.values.filled > 0 {
                self.leave_out(path, "a single value where an object stands elsewhere");
            } else if is_empty {
                self.leave_out(path, "always an empty object");
            }
        } else if self.has_text(node) || is_empty {
            let value = self.value(node, path);
            self.add(path, Shape::Value(value), note(node, count), found);
        }
        self.children(id, path, count, found);
    }

    fn value(&mut self, node: &Node, path: &[NodeId]) -> ValueSpec {
        let name = short_name(&self.words(path));
        let text = self.prefixes.path(self.tree, path);
        let mut value = spec(node, text, &name);
        let is_key = node.values.filled >= MIN_REQUIRED
            && node.values.filled == self.tree.node(self.record).count
            && node.values.all_differ()
            && names::is_identifier(&name);
        if is_key && !self.has_key && self.is_of_record(path) {
            value.required = true;
            self.has_key = true;
        }
        value
    }

    fn is_of_record(&self, path: &[NodeId]) -> bool {
        let first = path.first().map(|&first| self.tree.node(first).parent);
        first == Some(self.record)
    }

    fn list(&mut self, id: NodeId, path: &mut [NodeId], count: u64, found: &mut Vec<Nameless>) {
        let node = self.tree.node(id);
        let each = self.prefixes.path(self.tree, path);
        let of_objects = match self.is_json {
            true => node.objects > 0,
            false => !self.inside(node).is_empty(),
        };
        if self.is_json && node.count == 0 {
            return self.leave_out(path, "always an empty list");
        }
        if self.is_json && of_objects && node.values.filled > 0 {
            self.leave_out(path, "a single value in a list of objects");
        }
        let holders = format!("{} of {count}, up to {} each", node.holders, node.most);
        if !of_objects {
            let name = short_name(&self.words(path));
            let value = spec(node, ".".into(), &name);
            let note = holders + &values_note(node);
            return self.add(path, Shape::List { each, value }, note, found);
        }
        match self.object(id) {
            fields if fields.is_empty() => self.leave_out(path, "always empty objects"),
            fields => self.add(path, Shape::Objects { each, fields }, holders, found),
        }
    }

    fn add(&self, path: &[NodeId], shape: Shape, note: String, found: &mut Vec<Nameless>) {
        let mut words = self.words(path);
        // A list alone in its element is called like that: `images/image` is `images`.
        if let [.., outer, _] = path
            && !matches!(shape, Shape::Value(_))
            && self.tree.node(*outer).children.len() == 1
        {
            words.pop();
        }
        found.push(Nameless { words, shape, note });
    }

    fn words(&self, path: &[NodeId]) -> Vec<String> {
        let word = |&id: &NodeId| names::snake_case(self.tree.node(id).name().text);
        path.iter().map(word).collect()
    }

    fn is_addressable(&self, node: &Node, depth: usize) -> bool {
        let name = node.name().text;
        if self.is_csv {
            return true;
        }
        // A JSON key such as `@id` is asked for like an attribute, which has nothing inside.
        let name = match name.strip_prefix('@') {
            Some(name) if self.is_json && node.objects == 0 => name,
            _ => name,
        };
        is_path_segment(name) && !(depth == 1 && name.starts_with("$source"))
    }

    fn leave_out(&mut self, path: &[NodeId], reason: &str) {
        let from_record = self.tree.path(self.record).len();
        let whole = path.last().map(|&last| self.tree.path(last));
        let inside = whole.map(|whole| self.prefixes.path(self.tree, &whole[from_record..]));
        self.left_out
            .push(format!("{}: {reason}", inside.unwrap_or_default()));
    }
}

/// Whether a path can ask for the name, as one of those that `/` joins.
pub fn is_path_segment(name: &str) -> bool {
    is_path_name(name) && !name.contains('/')
}

/// How the value is taken. The text of an element that has others inside is all of theirs, which no type fits.
fn spec(node: &Node, path: String, name: &str) -> ValueSpec {
    let value = node.values.spec(path, name);
    match node.objects {
        0 => value,
        _ => ValueSpec {
            kind: None,
            from: Vec::new(),
            trim: true,
            ..value
        },
    }
}

/// The last word, with that of what is around it where it does not say so itself: `price/currency` is `price_currency`, and
/// `order/orderId` is `order_id`.
fn short_name(words: &[String]) -> String {
    match words {
        [.., outer, last] if !is_said_by(outer, last) => format!("{outer}_{last}"),
        [.., last] => last.clone(),
        [] => "value".to_owned(),
    }
}

fn is_said_by(outer: &str, name: &str) -> bool {
    let rest = name.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Gives each field a name of its own, the short ones to those that are not deep.
fn name(found: Vec<Nameless>) -> Vec<Field> {
    let mut order: Vec<_> = (0..found.len()).collect();
    order.sort_by_key(|&index| found[index].words.len());
    let mut names = vec![String::new(); found.len()];
    let mut unique = Unique::default();
    for index in order {
        let words = &found[index].words;
        let most = words.len().saturating_sub(2);
        let longer = (0..=most).rev().map(|from| words[from..].join("_"));
        let short = short_name(words);
        let mut names_of_it = std::iter::once(short.clone()).chain(longer);
        let free = names_of_it.find(|name| !name.is_empty() && !unique.is_taken(name));
        names[index] = unique.take(&free.unwrap_or(short));
    }
    let fields = found.into_iter().zip(names);
    fields
        .map(|(field, name)| Field {
            name,
            shape: field.shape,
            note: field.note,
        })
        .collect()
}

/// In how many of `count` objects there is a value, and what is known of it.
fn note(node: &Node, count: u64) -> String {
    let values = values_note(node);
    match (node.mixed, node.values.filled) {
        (0, filled) if node.objects > 0 => {
            format!("{filled} of {count}, elsewhere the text of the elements in it")
        }
        (0, filled) => format!("{filled} of {count}{values}"),
        (mixed, filled) => format!(
            "{} of {count}, mixed content: its text alone",
            mixed + filled
        ),
    }
}

fn values_note(node: &Node) -> String {
    let values = &node.values;
    let different = match values.different() {
        _ if values.filled == 0 && values.nulls > 0 => return ", always null".to_owned(),
        _ if values.filled == 0 => return ", always empty".to_owned(),
        _ if values.filled == 1 => String::new(),
        Some(1) => ", always the same".to_owned(),
        Some(different) if different as u64 == values.filled => ", all different".to_owned(),
        Some(different) => format!(", {different} different"),
        None => ", many different".to_owned(),
    };
    let types = match values.are_of_several_types() {
        true => ", strings and other types",
        false => "",
    };
    format!("{different}{types}: {}", values.example())
}
