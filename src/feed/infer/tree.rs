//! What the samples are made of: every path in them once, with how often it was met and what stood there.
//!
//! An element, an attribute, a JSON key and a column are a node each. Of an array each element is counted for the node of its key, so that
//! a JSON array and repeated XML elements look the same. Promise: bounded, whatever the samples: in names per node, in nodes, and in
//! what is kept of values.

use std::collections::HashMap;

use super::names;
use super::values::{Text, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// Every document; the root elements, or top-level values, are its children.
pub const DOCUMENT: NodeId = NodeId(0);

/// What was met once there was no room for more nodes.
const ELSEWHERE: NodeId = NodeId(1);

/// Names that one node may have inside it. More are not names but keys of a table, `{"4711": {...}, "4712": {...}}`, and become one: `*`.
const MAX_NAMES: usize = 500;

/// With all that is kept of their values, less than 100 MB.
pub const MAX_NODES: usize = 50_000;

/// Stands for any name.
pub const ANY: &str = "*";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An XML element or attribute, or a cell: has text.
    Text,
    /// A JSON value: has a type of its own.
    Json,
}

/// What a node is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// With a namespace, the local name; without, the name as it is written, an undeclared prefix included.
    pub text: &'a str,
    /// Index of the namespace.
    pub namespace: Option<usize>,
    pub is_attribute: bool,
}

impl<'a> Name<'a> {
    pub fn plain(text: &'a str) -> Self {
        Self {
            text,
            namespace: None,
            is_attribute: false,
        }
    }
}

#[derive(Debug)]
pub struct Node {
    text: String,
    pub namespace: Option<usize>,
    pub is_attribute: bool,
    pub parent: NodeId,
    pub children: Vec<NodeId>,
    /// How often it was met.
    pub count: u64,
    /// How many of its parents have it.
    pub holders: u64,
    /// The most of it that one parent has.
    pub most: u64,
    /// A JSON array stood there, an empty one perhaps.
    pub is_array: bool,
    /// How many of it have something inside: elements, or keys of an object.
    pub objects: u64,
    /// How many have text beside elements.
    pub mixed: u64,
    /// Bytes of its names and values, those of its children left out.
    bytes: u64,
    pub values: Values,
    /// The parent it was met in last, and how often in that.
    last_parent: u64,
    in_last_parent: u64,
    /// Its names were too many: all are one now.
    is_table: bool,
    /// The child after the one that was asked for last: most documents have their names in the same order everywhere.
    next: usize,
}

impl Node {
    pub fn name(&self) -> Name<'_> {
        Name {
            text: &self.text,
            namespace: self.namespace,
            is_attribute: self.is_attribute,
        }
    }

    /// Whether there may be several of it.
    pub fn repeats(&self) -> bool {
        self.most > 1 || self.is_array
    }
}

struct Open {
    id: NodeId,
    /// Tells this instance of the node from all others.
    serial: u64,
    kind: Kind,
    text: Text,
    has_children: bool,
}

pub struct Tree {
    nodes: Vec<Node>,
    open: Vec<Open>,
    serial: u64,
    /// Something was met for which there was no room.
    pub is_cut: bool,
}

impl Tree {
    pub fn new() -> Self {
        Self {
            nodes: vec![
                Node::new(Name::plain(""), DOCUMENT),
                Node::new(Name::plain(ANY), DOCUMENT),
            ],
            open: Vec::new(),
            serial: 0,
            is_cut: false,
        }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// The node of that name inside the innermost open one.
    pub fn child(&mut self, name: Name<'_>) -> NodeId {
        let parent = self.open.last().map_or(DOCUMENT, |open| open.id);
        if parent == ELSEWHERE {
            return ELSEWHERE;
        }
        if let Some(known) = self.find(parent, name) {
            return known;
        }
        if self.node(parent).children.len() >= MAX_NAMES && parent != DOCUMENT {
            self.make_table(parent);
            return self.find(parent, name).unwrap_or(ELSEWHERE);
        }
        self.add(parent, name)
    }

    /// The nodes of the columns of `row`, of which there may be any number.
    pub fn columns(&mut self, row: NodeId, names: &[String]) -> Vec<NodeId> {
        let children = self.node(row).children.iter();
        let known: HashMap<String, NodeId> = children
            .map(|&id| (self.node(id).text.clone(), id))
            .collect();
        let column = |name: &String| match known.get(name) {
            Some(&id) => id,
            None => self.add(row, Name::plain(name)),
        };
        names.iter().map(column).collect()
    }

    fn find(&mut self, parent: NodeId, name: Name<'_>) -> Option<NodeId> {
        let node = self.node(parent);
        let name = match node.is_table && !name.is_attribute {
            true => Name::plain(ANY),
            false => name,
        };
        let is_it = |&&child: &&NodeId| self.node(child).name() == name;
        if let Some(&child) = node.children.get(node.next).filter(is_it) {
            self.node_mut(parent).next += 1;
            return Some(child);
        }
        let index = node.children.iter().position(|child| is_it(&child))?;
        let child = node.children[index];
        self.node_mut(parent).next = index + 1;
        Some(child)
    }

    fn add(&mut self, parent: NodeId, name: Name<'_>) -> NodeId {
        if self.nodes.len() >= MAX_NODES {
            self.is_cut = true;
            return ELSEWHERE;
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node::new(name, parent));
        self.node_mut(parent).children.push(id);
        id
    }

    /// Goes into a document.
    pub fn enter_document(&mut self) {
        self.open.clear();
        self.enter(DOCUMENT, Kind::Json);
    }

    /// Goes into an element, or a JSON object.
    pub fn enter(&mut self, id: NodeId, kind: Kind) {
        let parent = self.open.last_mut().map_or(0, |parent| {
            parent.has_children |= !self.nodes[id.0].is_attribute;
            parent.serial
        });
        self.serial += 1;
        let node = &mut self.nodes[id.0];
        node.count += 1;
        node.bytes += node.text.len() as u64 + 1;
        if node.last_parent != parent || parent == 0 {
            node.last_parent = parent;
            node.in_last_parent = 0;
            node.holders += 1;
        }
        node.in_last_parent += 1;
        node.most = node.most.max(node.in_last_parent);
        if kind == Kind::Json {
            node.objects += 1;
        }
        self.open.push(Open {
            id,
            serial: self.serial,
            kind,
            text: Text::default(),
            has_children: false,
        });
    }

    /// Adds text to the innermost open element.
    pub fn text(&mut self, text: &str) {
        if let Some(open) = self.open.last_mut() {
            open.text.push(text);
        }
    }

    /// Goes out of the innermost open element or object; says which it was.
    pub fn leave(&mut self) -> NodeId {
        let Some(open) = self.open.pop() else {
            return DOCUMENT;
        };
        let node = &mut self.nodes[open.id.0];
        node.bytes += open.text.bytes();
        match open.kind {
            Kind::Json => {}
            Kind::Text if open.has_children => {
                node.objects += 1;
                node.mixed += u64::from(!open.text.is_blank());
            }
            Kind::Text => node.values.add(&open.text),
        }
        open.id
    }

    /// Takes an attribute or a cell.
    pub fn take(&mut self, id: NodeId, text: &str) {
        self.enter(id, Kind::Text);
        self.text(text);
        self.leave();
    }

    /// Takes a JSON value that is no object and no array.
    pub fn take_json(&mut self, id: NodeId, text: &str, is_string: bool) {
        self.enter(id, Kind::Text);
        self.open.pop();
        let node = self.node_mut(id);
        node.bytes += text.len() as u64;
        node.values.add_json(text, is_string);
    }

    /// Whether there may be several of it in one place: there were, or its name and that of the element around it say so.
    pub fn is_list(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let parent = self.node(node.parent);
        let is_alone = parent.children.len() == 1 && !node.is_attribute;
        node.repeats() || is_alone && names::is_plural(&parent.text, &node.text)
    }

    /// Bytes of names and values of the node and all that is in it.
    pub fn weight(&self, id: NodeId) -> u64 {
        let node = self.node(id);
        let inside = node.children.iter().map(|&child| self.weight(child));
        node.bytes + inside.sum::<u64>()
    }

    /// The node and those around it, the outermost one first, the document left out.
    pub fn path(&self, id: NodeId) -> Vec<NodeId> {
        let mut path = Vec::new();
        let mut next = id;
        while next != DOCUMENT {
            path.push(next);
            next = self.node(next).parent;
        }
        path.reverse();
        path
    }

    /// The nodes that have anything inside, but for markup in text.
    pub fn parents(&self) -> Vec<&Node> {
        let mut parents = vec![self.node(DOCUMENT)];
        let mut next = 0;
        while let Some(&parent) = parents.get(next) {
            let children = parent.children.iter().map(|&child| self.node(child));
            parents.extend(children.filter(|node| node.mixed == 0 && !node.children.is_empty()));
            next += 1;
        }
        parents
    }

    /// Takes names in some of the namespaces as they are written, with the prefix beside the namespace.
    pub fn forget(&mut self, namespaces: &[(usize, String)]) {
        for node in &mut self.nodes {
            let is_of = |(index, _): &&(usize, String)| node.namespace == Some(*index);
            if let Some((_, prefix)) = namespaces.iter().find(is_of) {
                node.text = qualified(prefix, &node.text);
                node.namespace = None;
            }
        }
        if !namespaces.is_empty() {
            self.unite_children(DOCUMENT);
        }
    }

    fn make_table(&mut self, id: NodeId) {
        for child in self.node(id).children.clone() {
            let child = self.node_mut(child);
            if !child.is_attribute {
                ANY.clone_into(&mut child.text);
                child.namespace = None;
            }
        }
        self.node_mut(id).is_table = true;
        self.unite_children(id);
    }

    /// Makes one node of those that have the same name.
    fn unite_children(&mut self, id: NodeId) {
        let mut kept: Vec<NodeId> = Vec::new();
        for child in std::mem::take(&mut self.node_mut(id).children) {
            let name = self.node(child).name();
            let same = kept.iter().find(|&&other| self.node(other).name() == name);
            match same {
                Some(&same) => self.unite(same, child),
                None => kept.push(child),
            }
        }
        self.node_mut(id).children.clone_from(&kept);
        for child in kept {
            self.unite_children(child);
        }
    }

    fn unite(&mut self, kept: NodeId, gone: NodeId) {
        let gone = std::mem::replace(self.node_mut(gone), Node::new(Name::plain(""), kept));
        for &child in &gone.children {
            self.node_mut(child).parent = kept;
        }
        self.node_mut(kept).add(gone);
    }
}

/// The name as a document writes it.
pub fn qualified(prefix: &str, local: &str) -> String {
    match prefix {
        "" => local.to_owned(),
        prefix => format!("{prefix}:{local}"),
    }
}

impl Node {
    fn new(name: Name<'_>, parent: NodeId) -> Self {
        Self {
            text: name.text.to_owned(),
            namespace: name.namespace,
            is_attribute: name.is_attribute,
            parent,
            children: Vec::new(),
            count: 0,
            holders: 0,
            most: 0,
            is_array: false,
            objects: 0,
            mixed: 0,
            bytes: 0,
            values: Values::default(),
            last_parent: 0,
            in_last_parent: 0,
            is_table: false,
            next: 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.children.extend(other.children);
        self.count += other.count;
        self.holders += other.holders;
        self.most = self.most.max(other.most);
        self.is_array |= other.is_array;
        self.objects += other.objects;
        self.mixed += other.mixed;
        self.bytes += other.bytes;
        self.is_table |= other.is_table;
        self.values.unite(other.values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `a(b b(c))`.
    fn tree(text: &str) -> Tree {
        let mut tree = Tree::new();
        tree.enter_document();
        for token in text.replace('(', " ( ").replace(')', " ) ").split(' ') {
            match token {
                "" => {}
                "(" => {}
                ")" => {
                    tree.leave();
                }
                name => {
                    let (name, is_leaf) = match name.strip_suffix('.') {
                        Some(name) => (name, true),
                        None => (name, false),
                    };
                    let id = tree.child(Name::plain(name));
                    tree.enter(id, Kind::Text);
                    if is_leaf {
                        tree.leave();
                    }
                }
            }
        }
        tree
    }

    fn at(tree: &Tree, path: &str) -> NodeId {
        path.split('/').fold(DOCUMENT, |parent, name| {
            let mut children = tree.node(parent).children.iter();
            *children
                .find(|&&id| tree.node(id).text == name)
                .expect(name)
        })
    }

    #[test]
    fn holders_and_the_most_in_one_parent_are_counted_apart() {
        let tree = tree("r(a(x. x. x.) a(y.) a(x.))");
        let x = tree.node(at(&tree, "r/a/x"));
        assert_eq!((x.count, x.holders, x.most), (4, 2, 3));
        assert!(x.repeats());
        let y = tree.node(at(&tree, "r/a/y"));
        assert_eq!((y.count, y.holders, y.most), (1, 1, 1));
        assert!(!y.repeats());
        assert_eq!(tree.node(at(&tree, "r/a")).objects, 3);
    }

    #[test]
    fn too_many_names_in_one_place_become_one() {
        let keys: String = (0..=MAX_NAMES).map(|n| format!("k{n}(v. w.) ")).collect();
        let tree = tree(&format!("r(t({keys}))"));
        let table = at(&tree, "r/t");
        assert_eq!(tree.node(table).children.len(), 1);
        let any = tree.node(at(&tree, "r/t/*"));
        assert_eq!(any.count, MAX_NAMES as u64 + 1);
        let v = at(&tree, "r/t/*/v");
        assert_eq!(tree.node(v).count, any.count);
        assert_eq!(tree.path(v).len(), 4);
        assert!(!tree.is_cut);
    }

    #[test]
    fn without_room_for_more_nodes_the_rest_is_counted_nowhere() {
        let names = |prefix: char| (0..300).map(move |n| format!("{prefix}{n}"));
        let text: String = names('a')
            .map(|outer| {
                let inner: String = names('b').map(|inner| format!("{inner}. ")).collect();
                format!("{outer}({inner}) ")
            })
            .collect();
        let tree = tree(&format!("r({text} a0(b0.))"));
        assert!(tree.is_cut);
        assert!(tree.nodes.len() <= MAX_NODES);
        assert_eq!(tree.node(at(&tree, "r/a0/b0")).count, 2);
    }
}
