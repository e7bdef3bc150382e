//! `fields` tables to a [`Mapping`].

use std::mem::replace;

use super::date::{DateFormat, DateFormatError};
use super::value::{self, Kind, TypeError};
use super::{
    Joined, Keyed, LINK, Mapping, Object, Origin, Output, RECORD_SCOPE, RECORD_STEP, Scalar, Scope,
    ScopeId, Step, StepId, Target, Template,
};
use crate::feed::Source;
use crate::feed::names::{NameTest, Namespaces};
use crate::feed::spec::{self, FieldSpec, Fields, Take, ValueSpec, ValueType};
use crate::feed::write::json_string;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("{0:?} is not a path: names joined by `/`, `@name` only at the end, or `.`")]
    NotAPath(String),
    #[error("`each` needs the path of elements, and {0:?} is not one")]
    EachNotElements(String),
    #[error("the key {0:?} has a brace without its counterpart, or nothing in braces")]
    BadTemplate(String),
    #[error("`fill_gaps` needs exactly one path in the key, and {0:?} has {1}")]
    GapsNeedOneNumber(String, usize),
    #[error("the default {value:?} does not fit the type")]
    BadDefault { value: String, source: TypeError },
    #[error(transparent)]
    DateFormat(#[from] DateFormatError),
    #[error(
        "{0:?} is nothing that is known of a source: `$source` has bucket, key, etag, last_modified and feed"
    )]
    NotOfSource(String),
    #[error("a required value has no use for a default")]
    RequiredWithDefault,
    #[error("an object needs at least one field")]
    NoFields,
}

impl Mapping {
    /// On an error, says which field by its keys joined with dots.
    pub fn compile(fields: &Fields, namespaces: &Namespaces) -> Result<Self, (String, FieldError)> {
        let mut compiler = Compiler {
            namespaces,
            steps: vec![Step::new(NameTest::Any)],
            scopes: vec![Scope {
                list: None,
                slots: LINK + 1,
            }],
        };
        let record = Context {
            step: RECORD_STEP,
            scope: RECORD_SCOPE,
            path: String::new(),
        };
        let object = compiler.object(fields, &record)?;
        compiler.prefer_bound_names();
        Ok(Self {
            steps: compiler.steps,
            scopes: compiler.scopes,
            object,
        })
    }
}

struct Compiler<'s> {
    namespaces: &'s Namespaces,
    steps: Vec<Step>,
    scopes: Vec<Scope>,
}

/// What paths are relative to.
struct Context {
    step: StepId,
    scope: ScopeId,
    /// From the record, for rejections.
    path: String,
}

struct Path {
    elements: Vec<NameTest>,
    attribute: Option<String>,
}

impl Compiler<'_> {
    fn object(
        &mut self,
        fields: &Fields,
        context: &Context,
    ) -> Result<Object, (String, FieldError)> {
        if fields.is_empty() {
            return Err((String::new(), FieldError::NoFields));
        }
        let mut before = "{";
        let compile = |(key, field): (&String, &FieldSpec)| match self.field(field, context) {
            Ok(output) => {
                let before = replace(&mut before, ",");
                Ok((format!("{before}{}:", json_string(key)), output))
            }
            Err((inner, error)) if inner.is_empty() => Err((key.clone(), error)),
            Err((inner, error)) => Err((format!("{key}.{inner}"), error)),
        };
        fields.iter().map(compile).collect()
    }

    fn field(
        &mut self,
        field: &FieldSpec,
        context: &Context,
    ) -> Result<Output, (String, FieldError)> {
        let here = |error| (String::new(), error);
        match field {
            FieldSpec::Value(value) => self
                .scalar(value, context)
                .map(Output::Scalar)
                .map_err(here),
            FieldSpec::Constant(value) => Ok(Output::Constant(scalar_json(value))),
            FieldSpec::Object { fields } => self.object(fields, context).map(Output::Object),
            FieldSpec::List { each, value } => {
                let (slot, item) = self.each(each, context).map_err(here)?;
                let item = Box::new(Output::Scalar(self.scalar(value, &item).map_err(here)?));
                Ok(Output::List { slot, item })
            }
            FieldSpec::Joined { each, value, join } => {
                let (slot, item) = self.each(each, context).map_err(here)?;
                Ok(Output::Joined(Joined {
                    slot,
                    value: self.scalar(value, &item).map_err(here)?,
                    separator: join.clone(),
                }))
            }
            FieldSpec::Objects { each, fields } => {
                let (slot, item) = self.each(each, context).map_err(here)?;
                let item = Box::new(Output::Object(self.object(fields, &item)?));
                Ok(Output::List { slot, item })
            }
            FieldSpec::Keyed {
                each,
                key,
                value,
                fill_gaps,
            } => {
                let (slot, item) = self.each(each, context).map_err(here)?;
                let keyed = Keyed {
                    slot,
                    key: self.template(key, &item).map_err(here)?,
                    value: self.scalar(value, &item).map_err(here)?,
                    path: item.path,
                    fill_gaps: *fill_gaps,
                };
                match keyed.key.pieces.len() {
                    1 => Ok(Output::Keyed(keyed)),
                    paths if *fill_gaps => {
                        Err(here(FieldError::GapsNeedOneNumber(key.clone(), paths)))
                    }
                    _ => Ok(Output::Keyed(keyed)),
                }
            }
        }
    }

    fn scalar(&mut self, value: &ValueSpec, context: &Context) -> Result<Scalar, FieldError> {
        if value.required && value.default.is_some() {
            return Err(FieldError::RequiredWithDefault);
        }
        let kind = value
            .kind
            .map(|kind| compile_kind(kind, value))
            .transpose()?;
        Ok(Scalar {
            origin: self.origin(&value.path, value.take, context)?,
            path: join(&context.path, &value.path),
            default: default_json(value, kind.as_ref())?,
            kind,
            is_required: value.required,
            trim: value.trim,
        })
    }

    /// A scope for the elements at `path`; the slot that holds their list, and what is relative to each of them.
    fn each(&mut self, path: &str, context: &Context) -> Result<(usize, Context), FieldError> {
        let Path {
            elements,
            attribute,
        } = self.parse(path)?;
        if attribute.is_some() || elements.is_empty() {
            return Err(FieldError::EachNotElements(path.to_owned()));
        }
        let list = self.new_slot(context.scope);
        let scope = ScopeId(self.scopes.len());
        self.scopes.push(Scope {
            list: Some(list),
            slots: LINK + 1,
        });
        let step = self.step_at(context.step, elements);
        self.steps[step.0].opens.push(scope);
        let path = join(&context.path, path);
        Ok((list.slot, Context { step, scope, path }))
    }

    fn template(&mut self, template: &str, context: &Context) -> Result<Template, FieldError> {
        let bad = || FieldError::BadTemplate(template.to_owned());
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once('{') {
            let (path, after) = after.split_once('}').ok_or_else(bad)?;
            if literal.contains('}') || path.is_empty() {
                return Err(bad());
            }
            pieces.push((literal.to_owned(), self.origin(path, Take::First, context)?));
            rest = after;
        }
        if rest.contains('}') {
            return Err(bad());
        }
        Ok(Template {
            pieces,
            tail: rest.to_owned(),
        })
    }

    fn origin(&mut self, path: &str, take: Take, context: &Context) -> Result<Origin, FieldError> {
        match path.strip_prefix("$source") {
            Some(part) if part.is_empty() || part.starts_with('.') => part_of_source(part)
                .map(Origin::Source)
                .ok_or_else(|| FieldError::NotOfSource(path.to_owned())),
            _ => self.slot_of(path, take, context).map(Origin::Slot),
        }
    }

    /// A slot for the value at `path`.
    fn slot_of(&mut self, path: &str, take: Take, context: &Context) -> Result<usize, FieldError> {
        let Path {
            elements,
            attribute,
        } = self.parse(path)?;
        let target = Target {
            takes_last: take == Take::Last,
            ..self.new_slot(context.scope)
        };
        let step = self.step_at(context.step, elements);
        match attribute {
            None => self.steps[step.0].values.push(target),
            Some(name) => {
                let test = self.namespaces.test(&name);
                self.steps[step.0].attributes.push((test, target));
                // In JSON an attribute is a key like any other, and no XML element can have such a name.
                let key = self.step_at(step, vec![NameTest::Literal(format!("@{name}"))]);
                self.steps[key.0].values.push(target);
            }
        }
        Ok(target.slot)
    }

    fn new_slot(&mut self, scope: ScopeId) -> Target {
        let slots = &mut self.scopes[scope.0].slots;
        *slots += 1;
        Target {
            scope,
            slot: *slots - 1,
            takes_last: false,
        }
    }

    fn step_at(&mut self, from: StepId, elements: Vec<NameTest>) -> StepId {
        elements.into_iter().fold(from, |parent, name| {
            let known = self.steps[parent.0]
                .children
                .iter()
                .find(|child| self.steps[child.0].name == name);
            known.copied().unwrap_or_else(|| {
                let child = StepId(self.steps.len());
                self.steps.push(Step::new(name));
                self.steps[parent.0].children.push(child);
                child
            })
        })
    }

    fn parse(&self, path: &str) -> Result<Path, FieldError> {
        if path == "." {
            return Ok(Path {
                elements: Vec::new(),
                attribute: None,
            });
        }
        let (elements, attribute) = match path.rsplit_once('/') {
            Some((elements, last)) if last.starts_with('@') => (Some(elements), Some(&last[1..])),
            None if path.starts_with('@') => (None, Some(&path[1..])),
            _ => (Some(path), None),
        };
        let names: Vec<_> = elements
            .map(|elements| elements.split('/').collect())
            .unwrap_or_default();
        if !names.iter().copied().chain(attribute).all(is_path_name) {
            return Err(FieldError::NotAPath(path.to_owned()));
        }
        Ok(Path {
            elements: names
                .into_iter()
                .map(|name| self.namespaces.test(name))
                .collect(),
            attribute: attribute.map(str::to_owned),
        })
    }

    /// Where an element fits a name by its namespace and another one literally, the namespace decides.
    fn prefer_bound_names(&mut self) {
        let is_literal: Vec<_> = self
            .steps
            .iter()
            .map(|step| !step.name.is_bound())
            .collect();
        for step in &mut self.steps {
            step.children.sort_by_key(|child| is_literal[child.0]);
        }
    }
}

impl Step {
    fn new(name: NameTest) -> Self {
        Self {
            name,
            children: Vec::new(),
            attributes: Vec::new(),
            values: Vec::new(),
            opens: Vec::new(),
        }
    }
}

/// A name as paths in the configuration have it: of an element or a JSON key. JSON keys may contain anything, so little is refused.
pub fn is_path_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.starts_with('@')
        && !name.contains(['*', '[', ']', '{', '}'])
}

fn join(base: &str, path: &str) -> String {
    match (base, path) {
        (base, ".") => base.to_owned(),
        ("", path) => path.to_owned(),
        (base, path) => format!("{base}/{path}"),
    }
}

fn part_of_source(part: &str) -> Option<fn(&Source) -> Option<&str>> {
    Some(match part {
        ".bucket" => |source| Some(&source.bucket),
        ".key" => |source| Some(&source.key),
        ".etag" => |source| Some(&source.etag),
        ".last_modified" => |source| source.last_modified.as_deref(),
        ".feed" => |source| Some(&source.feed),
        _ => return None,
    })
}

fn compile_kind(kind: ValueType, value: &ValueSpec) -> Result<Kind, FieldError> {
    Ok(match kind {
        ValueType::String => Kind::String,
        ValueType::Integer => Kind::Integer,
        ValueType::Decimal => Kind::Decimal,
        ValueType::Boolean => Kind::Boolean,
        ValueType::Date => Kind::Date(DateFormat::compile(&value.from, value.to.as_deref())?),
    })
}

fn default_json(value: &ValueSpec, kind: Option<&Kind>) -> Result<String, FieldError> {
    match (&value.default, kind) {
        (None, _) => Ok("null".to_owned()),
        (Some(default), None) => Ok(scalar_json(default)),
        (Some(default), Some(kind)) => {
            let value = default.to_string();
            value::to_json(kind, &value).map_err(|source| FieldError::BadDefault { value, source })
        }
    }
}

fn scalar_json(scalar: &spec::Scalar) -> String {
    serde_json::to_value(scalar).map_or("null".to_owned(), |json| json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(toml: &str) -> String {
        let fields: Fields = toml::from_str(toml).unwrap();
        let (field, error) = Mapping::compile(&fields, &Namespaces::default()).unwrap_err();
        format!("{field}: {error}")
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_its_field() {
        for path in [
            "", "a//b", "/a", "a/", "@", "@a/b", "a/@", "a/.", "..", "a/*", "a[1]",
        ] {
            assert!(error(&format!("x = '{path}'")).starts_with("x: "), "{path}");
        }
        assert!(error("x = { each = '@a' }").contains("`each` needs the path of elements"));
        assert!(error("x = { each = '.' }").contains("`each` needs the path of elements"));
        assert!(error("x = { each = 'a', key = 'k_{b', value = 'c' }").contains("brace"));
        assert!(error("x = { each = 'a', key = 'k_{}', value = 'c' }").contains("brace"));
        assert!(error("x = { each = 'a', key = 'k}', value = 'c' }").contains("brace"));
        assert!(
            error("x = { each = 'a', key = 'k_{b}{c}', value = 'd', fill_gaps = true }")
                .contains("has 2")
        );
        assert!(
            error("x = { path = 'a', type = 'integer', default = 'b' }").contains("default \"b\"")
        );
        assert!(
            error("x = { path = 'a', required = true, default = 'b' }")
                .contains("no use for a default")
        );
        assert_eq!(
            error("[x.fields.y]\neach = 'a'\nfields = { z = '@' }")
                .split(':')
                .next(),
            Some("x.y.z")
        );
        assert!(error("x = { fields = {} }").contains("at least one"));
        for path in ["$source", "$source.", "$source.keys", "$source.key/a"] {
            assert!(
                error(&format!("x = '{path}'")).contains("nothing that is known of a source"),
                "{path}"
            );
        }
        let form = error("x.fields.y = { path = 'a', type = 'date', from = ['%Y-%m-%d', '%H'] }");
        assert!(form.starts_with("x.y: \"%H\" is not a form of a date"));
        assert!(
            error("x = { path = 'a', type = 'date', default = 'soon' }")
                .contains("default \"soon\"")
        );
    }

    #[test]
    fn paths_share_the_tree_where_they_run_together() {
        let fields: Fields = toml::from_str("a = 'x/y'\nb = 'x/z'\nc = { each = 'x/y' }").unwrap();
        let mapping = Mapping::compile(&fields, &Namespaces::default()).unwrap();
        assert_eq!(mapping.steps.len(), 4);
        assert_eq!(mapping.scopes.len(), 2);
    }
}
