//! Documents into the [`Tree`], by the engine's own parsers.

use std::collections::{BTreeSet, HashMap};

use super::names::{self, Unique};
use super::tree::{Kind, MAX_NODES, Name, Node, NodeId, Tree, qualified};
use super::{CsvSeen, Gauge};
use crate::feed::container::Stream;
use crate::feed::csv::{self, GivenDialect, Rows};
use crate::feed::fields::is_path_name;
use crate::feed::json::Scanner;
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Reason, Rejection};
use crate::feed::xml::{Events, Token, attributes, check_length};

/// The namespaces that elements and attributes were found in.
#[derive(Debug, Default)]
pub struct Namespaces {
    pub list: Vec<Namespace>,
}

#[derive(Debug)]
pub struct Namespace {
    pub uri: String,
    /// The first two prefixes it was declared with; the default namespace has an empty one.
    pub prefixes: Vec<String>,
}

/// A document that declares more is not a feed. Names in the others are taken as they are written.
const MAX_NAMESPACES: usize = 1_000;
const MAX_URI_BYTES: usize = 2_000;

impl Namespaces {
    fn declare(&mut self, prefix: &str, uri: &str) -> Option<usize> {
        if uri.is_empty() || uri.len() > MAX_URI_BYTES {
            return None;
        }
        let known = self.list.iter().position(|known| known.uri == uri);
        let index = known.unwrap_or(self.list.len());
        if index == MAX_NAMESPACES {
            return None;
        }
        if known.is_none() {
            self.list.push(Namespace {
                uri: uri.to_owned(),
                prefixes: Vec::new(),
            });
        }
        let prefixes = &mut self.list[index].prefixes;
        if prefixes.len() < 2 && !prefixes.iter().any(|known| known == prefix) {
            prefixes.push(prefix.to_owned());
        }
        Some(index)
    }

    /// Those in which a name is that stands beside one written alike, in another namespace or in none; each with its prefix.
    pub fn differing(&self, tree: &Tree) -> Vec<(usize, String)> {
        let mut differing = BTreeSet::new();
        for parent in tree.parents() {
            let mut seen: HashMap<(bool, String), Option<usize>> = HashMap::new();
            for node in parent.children.iter().map(|&child| tree.node(child)) {
                let Some(written) = self.written(node) else {
                    continue;
                };
                let before = seen.insert((node.is_attribute, written), node.namespace);
                if let Some(before) = before {
                    differing.extend([before, node.namespace].into_iter().flatten());
                }
            }
        }
        let prefix = |index: usize| self.list[index].prefixes.first().cloned();
        differing
            .into_iter()
            .map(|index| (index, prefix(index).unwrap_or_default()))
            .collect()
    }

    /// The name as all documents write it, if they do so alike.
    fn written(&self, node: &Node) -> Option<String> {
        let text = node.name().text;
        let Some(index) = node.namespace else {
            return Some(text.to_owned());
        };
        let prefixes = &self.list[index].prefixes;
        let only = prefixes.first().filter(|_| prefixes.len() == 1);
        only.map(|prefix| qualified(prefix, text))
    }
}

/// What is declared where the walk is: the depth, the prefix and the namespace.
#[derive(Default)]
struct Scopes(Vec<(usize, String, Option<usize>)>);

impl Scopes {
    /// Forgets what the element at `depth` declared.
    fn leave(&mut self, depth: usize) {
        while self.0.pop_if(|(at, ..)| *at >= depth).is_some() {}
    }

    fn resolve<'n>(&self, name: &'n str, is_attribute: bool) -> Name<'n> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let innermost = self.0.iter().rfind(|(_, declared, _)| declared == prefix);
        let namespace = innermost.and_then(|&(.., namespace)| namespace);
        // The default namespace does not reach attributes.
        let namespace = namespace.filter(|_| !is_attribute || !prefix.is_empty());
        Name {
            text: if namespace.is_some() { local } else { name },
            namespace,
            is_attribute,
        }
    }
}

pub fn xml<'r>(
    stream: &mut Stream<'r>,
    limits: &'r Limits,
    tree: &mut Tree,
    namespaces: &mut Namespaces,
    gauge: &mut Gauge<'_>,
) -> Result<(), ConvertError> {
    let mut events = Events::new(stream, limits);
    let mut scopes = Scopes::default();
    let mut depth = 0;
    tree.enter_document();
    loop {
        events.allow();
        let token = events.advance().and_then(|piece| events.token(piece));
        let step = match token {
            Ok(Token::Eof) => return Ok(()),
            Ok(Token::Start { tag, is_empty }) => {
                depth += 1;
                start(&tag, depth, limits, tree, namespaces, &mut scopes).map(|()| is_empty)
            }
            Ok(Token::End) => Ok(true),
            Ok(Token::Text(text)) => {
                tree.text(text);
                Ok(false)
            }
            Ok(Token::Nothing) => Ok(false),
            Err(error) => Err(error),
        };
        let has_ended = step.map_err(|error| events.locate(error))?;
        if has_ended {
            let done = tree.leave();
            scopes.leave(depth);
            depth -= 1;
            if gauge.is_enough(tree, done) {
                return Ok(());
            }
        }
    }
}

fn start(
    tag: &quick_xml::events::BytesStart<'_>,
    depth: usize,
    limits: &Limits,
    tree: &mut Tree,
    namespaces: &mut Namespaces,
    scopes: &mut Scopes,
) -> Result<(), ConvertError> {
    let mut rest = Vec::new();
    for attribute in attributes(tag, limits) {
        let (name, value) = attribute?;
        let prefix = match name.strip_prefix("xmlns") {
            Some("") => "",
            Some(prefix) if prefix.starts_with(':') => &prefix[1..],
            _ => {
                rest.push((name, value));
                continue;
            }
        };
        let namespace = namespaces.declare(prefix, &value);
        scopes.0.push((depth, prefix.to_owned(), namespace));
    }
    let id = tree.child(scopes.resolve(tag.name().0, false));
    tree.enter(id, Kind::Text);
    for (name, value) in rest {
        let id = tree.child(scopes.resolve(name, true));
        tree.take(id, &value);
    }
    Ok(())
}

/// Reads one value after another, of which a document has one; says how many there were.
pub fn json<'r>(
    stream: &mut Stream<'r>,
    limits: &'r Limits,
    tree: &mut Tree,
    gauge: &mut Gauge<'_>,
) -> Result<u64, ConvertError> {
    let mut scanner = Scanner::new(stream, limits);
    let mut values = 0;
    tree.enter_document();
    let root = tree.child(Name::plain(""));
    let read = (|| {
        while let Some(first) = scanner.next()? {
            if values > 0 && (first == b'[' || tree.node(root).is_array) {
                let message = "something follows the document";
                return Err(Rejection::because(Reason::MalformedJson, message).into());
            }
            value(root, &mut scanner, tree, gauge)?;
            values += 1;
        }
        Ok(())
    })();
    match read {
        Err(_) if gauge.is_over => Ok(values + 1),
        Err(error) => Err(ConvertError::complete(error, |rejection| {
            rejection.place(scanner.place());
        })),
        Ok(()) => Ok(values),
    }
}

fn value(
    id: NodeId,
    scanner: &mut Scanner<'_, '_>,
    tree: &mut Tree,
    gauge: &mut Gauge<'_>,
) -> Result<(), ConvertError> {
    let done = match scanner.peek()? {
        b'[' => {
            tree.node_mut(id).is_array = true;
            return scanner.array(|scanner| value(id, scanner, tree, gauge));
        }
        b'{' => {
            tree.enter(id, Kind::Json);
            scanner.object(|scanner, key| {
                let child = tree.child(Name::plain(key));
                value(child, scanner, tree, gauge)
            })?;
            tree.leave()
        }
        first => {
            let mut text = String::new();
            match first == b'"' {
                true => scanner.string(&mut text)?,
                false => scanner.literal(&mut text)?,
            }
            tree.take_json(id, &text, first == b'"');
            id
        }
    };
    match gauge.is_enough(tree, done) {
        // Nothing but an error ends the scanner's way through its arrays and objects.
        true => Err(Rejection::because(Reason::FileTooLarge, "enough was read").into()),
        false => Ok(()),
    }
}

pub fn csv<'r>(
    stream: &mut Stream<'r>,
    given: &GivenDialect,
    limits: &'r Limits,
    tree: &mut Tree,
    seen: &mut CsvSeen,
    gauge: &mut Gauge<'_>,
) -> Result<(), ConvertError> {
    let mut rows = csv::rows(given, limits, stream)?;
    let dialect = rows.dialect();
    seen.dialects.insert((dialect.delimiter, dialect.quote));
    read_rows(&mut rows, limits, tree, seen, gauge).map_err(|error| {
        error.complete(|rejection| {
            rejection.place(rows.place());
            rejection.excerpt = rejection.excerpt.take().or_else(|| rows.excerpt());
        })
    })
}

fn read_rows(
    rows: &mut Rows<'_, '_>,
    limits: &Limits,
    tree: &mut Tree,
    seen: &mut CsvSeen,
    gauge: &mut Gauge<'_>,
) -> Result<(), ConvertError> {
    if !rows.next()? {
        let message = "there is no row that could name the columns";
        return Err(Rejection::because(Reason::EmptyFile, message).into());
    }
    if rows.cells() > MAX_NODES {
        let message = format!("the header has more than {MAX_NODES} columns");
        return Err(Rejection::because(Reason::RecordTooLarge, message).into());
    }
    let header = cells(rows)?;
    for name in &header {
        check_length(name, limits)?;
    }
    let columns = seen.name_columns(&header);
    tree.enter_document();
    let row = tree.child(Name::plain(""));
    let columns = tree.columns(row, &columns);
    while rows.next()? {
        if rows.cells() != columns.len() {
            seen.ragged_rows += 1;
            seen.first_ragged.get_or_insert(rows.place().line);
            continue;
        }
        let cells = rows.row()?;
        tree.enter(row, Kind::Json);
        for (index, &column) in columns.iter().enumerate() {
            tree.take(column, cells.cell(index)?);
        }
        let done = tree.leave();
        if gauge.is_enough(tree, done) {
            break;
        }
    }
    // Rows are the records even when there is one.
    tree.node_mut(row).is_array = true;
    Ok(())
}

fn cells(rows: &Rows<'_, '_>) -> Result<Vec<String>, ConvertError> {
    let row = rows.row()?;
    let cells = (0..rows.cells()).map(|index| row.cell(index).map(str::to_owned));
    Ok(cells.collect::<Result<_, _>>()?)
}

impl CsvSeen {
    /// The names by which `fields` can ask for the columns; those of the header wherever that is possible.
    fn name_columns(&mut self, header: &[String]) -> Vec<String> {
        self.is_spaced |= header.iter().any(|name| name.trim() != name);
        let is_number = |name: &String| name.trim().parse::<f64>().is_ok();
        self.has_odd_header |= header.iter().any(is_number);
        let mut unique = Unique::default();
        let mut columns: Vec<String> = Vec::new();
        for (index, name) in header.iter().enumerate() {
            let name = match name.trim() {
                name if is_column_path(name) => name.to_owned(),
                name if name.chars().any(char::is_alphanumeric) => names::snake_case(name),
                _ => format!("column_{}", index + 1),
            };
            columns.push(unique.take(&name));
        }
        if columns.iter().ne(header.iter().map(|name| name.trim())) {
            self.renamed.get_or_insert_with(|| columns.clone());
        }
        let first = self.header.get_or_insert_with(|| columns.clone());
        self.have_headers_differed |= *first != columns;
        columns
    }
}

/// Whether a path in `fields` can be this column's name.
fn is_column_path(name: &str) -> bool {
    !name.starts_with("$source") && !name.contains('@') && name.split('/').all(is_path_name)
}
