//! The feed's table, put together: what the records are, the fields, and beside them what whoever reads it should know.

use std::collections::HashSet;

use indexmap::IndexSet;

use super::draft::{Drafter, Field, Prefixes, is_path_segment};
use super::names;
use super::records::Found;
use super::toml::{self, Line};
use super::tree::{ANY, DOCUMENT, Node, NodeId};
use super::{Format, Survey, Target, label};

/// Paths that are left out and told one by one.
const MAX_LEFT_OUT: usize = 20;

pub struct Text<'a> {
    survey: &'a Survey,
    found: Found,
    format: Format,
    prefixes: Prefixes<'a>,
    /// The record path; empty where the document itself, or each of its values, is a record.
    record_path: String,
}

impl<'a> Text<'a> {
    pub fn new(survey: &'a Survey, found: Found, format: Format) -> Self {
        let mut prefixes = Prefixes::new(&survey.namespaces);
        Self {
            record_path: record_path(survey, &mut prefixes, found.record),
            survey,
            found,
            format,
            prefixes,
        }
    }

    pub fn write(mut self, target: &Target) -> String {
        let (fields, left_out) = match target.whole || !self.has_objects() {
            true => (Vec::new(), Vec::new()),
            false => self.fields(),
        };
        let arrays = match fields.is_empty() && self.format == Format::Xml {
            true => self.arrays(),
            false => Vec::new(),
        };
        let mut text = self.comments(target, !fields.is_empty());
        text.push_str("[[feeds]]\n");
        text.push_str(&toml::table(&self.settings(target, arrays)));
        if !fields.is_empty() {
            text.push_str("\n[feeds.fields]\n");
            text.push_str(&toml::fields(&fields));
        }
        let omissions = self.omissions(target, &left_out);
        if !omissions.is_empty() {
            text.push('\n');
        }
        for line in omissions {
            text.push_str(&format!("# {}\n", toml::comment(&line)));
        }
        text
    }

    fn first_file(&self) -> &'a str {
        self.survey.files.first().map_or("-", String::as_str)
    }

    fn name(&self, target: &Target) -> String {
        let given = target.name.clone();
        given.unwrap_or_else(|| names::of_feed(self.first_file()))
    }

    fn record(&self) -> &'a Node {
        self.survey.tree.node(self.found.record)
    }

    /// Whether each record has fields; of JSON a single value has none.
    fn has_objects(&self) -> bool {
        let record = self.record();
        self.format != Format::Json || record.objects > 0 && record.objects == record.count
    }

    fn fields(&mut self) -> (Vec<Field>, Vec<String>) {
        let mut drafter = Drafter {
            tree: &self.survey.tree,
            prefixes: &mut self.prefixes,
            is_json: self.format == Format::Json,
            is_csv: self.format == Format::Csv,
            record: self.found.record,
            left_out: Vec::new(),
            has_key: false,
        };
        let fields = drafter.object(self.found.record);
        (fields, drafter.left_out)
    }

    fn comments(&self, target: &Target, has_fields: bool) -> String {
        let survey = self.survey;
        let encodings: Vec<_> = survey.encodings.iter().copied().collect();
        let mut comments = vec![
            format!(
                "Inferred from {}: {}, {}, {}.",
                survey.files.join(", "),
                label(self.format),
                encodings.join(" and "),
                counted(self.record().count, "record")
            ),
            format!(
                "Read it, edit what is marked, and try it: feedmill convert {} --feed {}",
                self.first_file(),
                self.name(target)
            ),
        ];
        if !survey.begun.is_empty() {
            comments.push(format!(
                "Only the beginning was read of {}.",
                survey.begun.join(", ")
            ));
        }
        comments.extend(self.others());
        if survey.has_forgotten {
            comments.push("Some names are in one namespace here and in another, or none, there: these are compared as they are written.".to_owned());
        }
        comments.extend(self.csv_comments());
        if has_fields {
            comments.push("Behind each field: how many of the records (or objects of a list) have it, how many different values, and one.".to_owned());
        }
        let lines = comments
            .iter()
            .map(|comment| format!("# {}\n", toml::comment(comment)));
        lines.collect()
    }

    fn others(&self) -> Option<String> {
        // What is only mentioned is not bound.
        let mut prefixes = self.prefixes.clone();
        let mut named = self.found.others.iter().map(|&id| {
            let path = record_path(self.survey, &mut prefixes, id);
            format!("{path} ({})", self.survey.tree.node(id).count)
        });
        let first = named.next()?;
        let list = named.fold(first, |list, other| format!("{list}, {other}"));
        Some(format!("Other lists that could be the records: {list}."))
    }

    fn csv_comments(&self) -> Vec<String> {
        let csv = &self.survey.csv;
        let mut comments = Vec::new();
        if let Some(line) = csv.first_ragged {
            comments.push(format!(
                "{} without a cell for each column, the first in line {line}: rejected (ragged_row), and the file with it unless max_rejected allows that.",
                counted(csv.ragged_rows, "row")
            ));
        }
        if csv.dialects.len() > 1 {
            comments.push(
                "The files differ in delimiters or quotes, which are found in each.".to_owned(),
            );
        }
        if csv.has_odd_header {
            comments.push("The first row has a number in it. If it is no header: csv.header = false, and csv.columns names the columns.".to_owned());
        }
        if csv.renamed.is_some() {
            comments.push("Columns without a name, of the same name, or with a name that no path can have, are renamed in csv.columns.".to_owned());
            if csv.have_headers_differed {
                comments.push(
                    "The files have different columns, and csv.columns can name those of one only."
                        .to_owned(),
                );
            }
        }
        comments
    }

    fn settings(&self, target: &Target, arrays: Vec<String>) -> Vec<Line> {
        let name = self.name(target);
        let r#match = match &target.r#match {
            Some(text) => text.clone(),
            None => format!("s3://partner-files/{name}/**"),
        };
        let mut lines = vec![
            Line::new(
                "name",
                toml::string(&name),
                match target.name {
                    Some(_) => "",
                    None => "edit: in results and metrics, never changed later",
                },
            ),
            Line::new(
                "match",
                toml::string(&r#match),
                match target.r#match {
                    Some(_) => "",
                    None => "edit: the bucket, and which keys in it",
                },
            ),
            Line::new("format", toml::string(self.format_name()), ""),
        ];
        if let Some(encoding) = &self.survey.options.encoding {
            lines.push(Line::new(
                "encoding",
                toml::string(encoding),
                "of files that don't say",
            ));
        }
        if !self.record_path.is_empty() {
            let path = toml::string(&self.record_path);
            lines.push(Line::new("record", path, ""));
        }
        for (prefix, &namespace) in &self.prefixes.used {
            let key = format!("namespaces.{}", toml::key(prefix));
            let uri = &self.survey.namespaces.list[namespace].uri;
            lines.push(Line::new(key, toml::string(uri), ""));
        }
        lines.extend(self.csv_table());
        if !arrays.is_empty() {
            let arrays: Vec<_> = arrays.iter().map(|path| toml::string(path)).collect();
            lines.push(Line::new(
                "arrays",
                format!("[{}]", arrays.join(", ")),
                "several in a record, seen or by their names",
            ));
        }
        lines
    }

    fn format_name(&self) -> &'static str {
        let survey = self.survey;
        match self.format {
            Format::Csv | Format::Tsv => "csv",
            Format::Json | Format::JsonLines => {
                let is_document = self.record().is_array || !self.record_path.is_empty();
                match is_document && !survey.has_json_lines() {
                    true => "json",
                    // One value, or any number of them.
                    false => "json_lines",
                }
            }
            Format::Xml | Format::Auto => "xml",
        }
    }

    fn csv_table(&self) -> Vec<Line> {
        let csv = &self.survey.csv;
        let mut lines = Vec::new();
        if let (1, Some(&(delimiter, quote))) = (csv.dialects.len(), csv.dialects.first()) {
            let delimiter = char::from(delimiter).to_string();
            lines.push(Line::new("csv.delimiter", toml::string(&delimiter), ""));
            let quote = quote.map(char::from).filter(|quote| *quote != '"');
            lines.extend(
                quote.map(|quote| Line::new("csv.quote", toml::string(&quote.to_string()), "")),
            );
        }
        if csv.is_spaced {
            lines.push(Line::new(
                "csv.trim",
                "true",
                "white space stands around names of columns",
            ));
        }
        if let Some(columns) = &csv.renamed {
            let columns: Vec<_> = columns.iter().map(|name| toml::string(name)).collect();
            lines.push(Line::new(
                "csv.columns",
                format!("[{}]", columns.join(", ")),
                "",
            ));
        }
        lines
    }

    /// The elements that a record has several times, each by the shortest end of its path that is none of a single element.
    fn arrays(&mut self) -> Vec<String> {
        let mut elements = Vec::new();
        self.elements(self.found.record, &mut Vec::new(), &mut elements);
        let singles = elements.iter().filter(|(_, repeats)| !repeats);
        let ends_of_singles: HashSet<&[String]> = singles
            .flat_map(|(path, _)| (0..path.len()).map(|start| &path[start..]))
            .collect();
        let repeated = elements.iter().filter(|(_, repeats)| *repeats);
        let ends = repeated.map(|(path, _)| {
            let is_clear = |start: &usize| !ends_of_singles.contains(&path[*start..]);
            let start = (0..path.len()).rev().find(is_clear).unwrap_or(0);
            path[start..].join("/")
        });
        let arrays: IndexSet<String> = ends.collect();
        arrays.into_iter().collect()
    }

    /// The paths of all elements inside `id`, with whether they repeat.
    fn elements(
        &mut self,
        id: NodeId,
        path: &mut Vec<String>,
        found: &mut Vec<(Vec<String>, bool)>,
    ) {
        for &child in &self.survey.tree.node(id).children {
            let node = self.survey.tree.node(child);
            if node.is_attribute || !is_path_segment(node.name().text) {
                continue;
            }
            path.push(self.prefixes.name(node));
            found.push((path.clone(), self.survey.tree.is_list(child)));
            self.elements(child, path, found);
            path.pop();
        }
    }

    /// What stands in the samples and not in the fields.
    fn omissions(&self, target: &Target, left_out: &[String]) -> Vec<String> {
        let mut lines = Vec::new();
        if !target.whole && !self.has_objects() {
            lines.push("Not all records are objects: they are converted whole.".to_owned());
        }
        let told = left_out.iter().take(MAX_LEFT_OUT);
        lines.extend(told.map(|what| format!("Left out: {what}.")));
        if left_out.len() > MAX_LEFT_OUT {
            lines.push(format!("Left out: {} more.", left_out.len() - MAX_LEFT_OUT));
        }
        if self.survey.tree.is_cut {
            lines.push(
                "There are more names in the samples than could be kept: some are left out."
                    .to_owned(),
            );
        }
        lines
    }
}

/// The way to the records. A name that no path can have is any name there.
fn record_path(survey: &Survey, prefixes: &mut Prefixes<'_>, record: NodeId) -> String {
    let names = survey.tree.path(record).into_iter().filter_map(|id| {
        let node = survey.tree.node(id);
        let is_top_of_json = node.name().text.is_empty() && node.parent == DOCUMENT;
        (!is_top_of_json).then(|| match is_path_segment(node.name().text) {
            true => prefixes.name(node),
            false => ANY.to_owned(),
        })
    });
    names.collect::<Vec<_>>().join("/")
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
