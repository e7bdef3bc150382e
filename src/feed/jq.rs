//! jq programs, by jaq: compiled once, run on record after record.
//!
//! A program sees the record and `$source`, and nothing else: what would make an output depend on the time, the process or the
//! machine is not there ([`REMOVED`]), and neither are other files. Numbers that a program only passes on keep their digits.
//! A program that goes on for too long, or calls itself too deep, is stopped at its next step; see [`Guard`].

mod guard;
mod write;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::load::{self, Arena, File, Loader, lex, parse};
use jaq_core::native::{Fun, run, v};
use jaq_core::{Compiler, Ctx, Vars, compile, unwrap_valr};
use jaq_json::{Val, read};

pub use guard::{Guard, STACK_BYTES};
use guard::{Guarded, Stop};

use super::Source;
use super::reject::{ConvertError, Reason, Rejection, excerpt};
use super::write::Record;

/// What jq has and programs here have not: it would tell the time, the time zone or the environment, write to the terminal, or end
/// the run. `input` and `inputs`, `$ENV`, `import` and `include` are not there in the first place.
const REMOVED: [&str; 11] = [
    "now",
    "localtime",
    "strflocaltime",
    "env",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "halt",
    "halt_error",
    // Not removed but put in place of: its numbers are steps that a guard can stop at.
    "range",
];

/// A compiled program.
pub struct Program(jaq_core::Filter<Guarded>);

/// What is wrong with a program, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramError {
    what: String,
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// The line itself.
    text: String,
}

impl Program {
    pub fn compile(text: &str) -> Result<Self, ProgramError> {
        let is_kept = |name: &str| !REMOVED.contains(&name);
        let defs = jaq_core::defs()
            .chain(jaq_std::defs())
            .chain(jaq_json::defs());
        // Definitions of `range` with fewer arguments rest on the one that is put in its place.
        let defs = defs.filter(|def| is_kept(def.name) || def.name == "range");
        let funs = jaq_core::funs()
            .chain(jaq_std::funs())
            .chain(jaq_json::funs());
        let funs = funs.filter(|(name, ..)| is_kept(name)).chain([range()]);
        let arena = Arena::default();
        let file = File {
            code: text,
            path: (),
        };
        let modules = Loader::new(defs)
            .load(&arena, file)
            .map_err(|errors| first(errors, text, load_error))?;
        Compiler::default()
            .with_funs(funs)
            .with_global_vars(["$source"])
            .compile(modules)
            .map(Self)
            .map_err(|errors| first(errors, text, |errors| undefined(errors)))
    }

    /// Calls `write` for each output of the program for `record`, which is JSON.
    pub fn run(
        &self,
        record: &[u8],
        source: &Val,
        guard: &Guard,
        mut write: impl FnMut(&Val) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let run = || {
            let input = read::parse_single(record).map_err(|error| failed(error.to_string()))?;
            let data = Guarded::data(&self.0.lut, guard);
            let context = Ctx::<Guarded>::new(data, Vars::new([source.clone()]));
            for output in self.0.id.run((context, input)).map(unwrap_valr) {
                write(&output.map_err(|error| failed(message(error)))?)?;
            }
            Ok(())
        };
        // A panic is how a guard ends a program; any other is a mistake in jaq, which must cost the record and not the process.
        let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            Err(match panic.downcast_ref() {
                Some(Stop::Late) => late(guard.budget()).into(),
                Some(Stop::Deep) => failed("the program calls itself too deep"),
                None => failed("the program failed inside jq itself"),
            })
        });
        ended.map_err(|error| {
            error.complete(|rejection| {
                if rejection.excerpt.is_none() {
                    rejection.excerpt = excerpt(record);
                }
            })
        })
    }
}

/// A record that took longer than `budget`.
pub fn late(budget: std::time::Duration) -> Box<Rejection> {
    Rejection::because(
        Reason::MappingTimeout,
        format!("the jq program has not ended after {budget:?}"),
    )
}

/// Longest text kept of an error of a program, in characters: it may quote a whole record.
const MAX_ERROR_CHARS: usize = 300;

/// A string that a program raises is its message.
fn message(error: jaq_json::Error) -> String {
    match error.into_val() {
        Val::TStr(text) => String::from_utf8_lossy(&text).into_owned(),
        value => value.to_string(),
    }
}

fn failed(message: impl Into<String>) -> ConvertError {
    let message: String = message.into().chars().take(MAX_ERROR_CHARS).collect();
    Rejection::because(Reason::MappingError, message).into()
}

/// `$source`.
pub fn source_value(source: &Source) -> Val {
    let text = |text: &str| Val::from(text.to_owned());
    let last_modified = source.last_modified.as_deref();
    let members = [
        ("bucket", text(&source.bucket)),
        ("key", text(&source.key)),
        ("etag", text(&source.etag)),
        ("last_modified", last_modified.map_or(Val::Null, text)),
        ("feed", text(&source.feed)),
    ];
    Val::obj(
        members
            .into_iter()
            .map(|(name, value)| (text(name), value))
            .collect(),
    )
}

/// Writes a value as the JSON of a record.
pub fn write_value(value: &Val, depth: usize, record: &mut Record<'_>) -> Result<(), ConvertError> {
    write::value(value, depth, record)
}

/// `range($from; $to; $by)`, number by number under the eyes of the guard.
fn range() -> Fun<Guarded> {
    run(("range", v(3), |mut cv| {
        let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
        let data = *cv.0.data();
        let zero = Val::from(0usize);
        let mut next = Some(from);
        Box::new(std::iter::from_fn(move || {
            data.check();
            let current = next.take()?;
            let is_within = match by.cmp(&zero) {
                std::cmp::Ordering::Greater => current < to,
                std::cmp::Ordering::Less => current > to,
                std::cmp::Ordering::Equal => current != to,
            };
            if !is_within {
                return None;
            }
            match current.clone() + by.clone() {
                Ok(sum) => {
                    next = Some(sum);
                    Some(Ok(current))
                }
                Err(error) => Some(Err(error.into())),
            }
        }))
    }))
}

fn first<'s, E>(
    errors: load::Errors<&'s str, (), E>,
    text: &'s str,
    describe: impl Fn(&E) -> Option<(String, &'s str)>,
) -> ProgramError {
    let found = errors.iter().find_map(|(_, error)| describe(error));
    let (what, part) = found.unwrap_or_else(|| ("not a program".into(), &text[..0]));
    ProgramError::at(what, text, part)
}

fn load_error<'s>(error: &load::Error<&'s str>) -> Option<(String, &'s str)> {
    match error {
        load::Error::Io(errors) => errors
            .first()
            .map(|(path, _)| ("programs can't load other files".to_owned(), *path)),
        load::Error::Lex(errors) => errors.first().map(|(expected, found): &lex::Error<_>| {
            (format!("expected {}", expected.as_str()), *found)
        }),
        load::Error::Parse(errors) => errors.first().map(|(expected, found): &parse::Error<_>| {
            (format!("expected {}", expected.as_str()), *found)
        }),
    }
}

fn undefined<'s>(errors: &[compile::Error<&'s str>]) -> Option<(String, &'s str)> {
    let (name, kind) = errors.first()?;
    let what = match REMOVED.contains(name) {
        true => format!("{name} is not there: outputs depend on the file alone"),
        false => format!("there is no {} {name}", kind.as_str()),
    };
    Some((what, name))
}

impl ProgramError {
    /// `part` is a piece of `text`, or of something else when the place is not known.
    fn at(what: String, text: &str, part: &str) -> Self {
        let inside = text.as_bytes().as_ptr_range();
        let is_inside = inside.start <= part.as_ptr() && part.as_ptr() <= inside.end;
        let offset = if is_inside {
            load::span(text, part).start
        } else {
            0
        };
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            what,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text[line_start..]
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            line,
            column,
            text,
        } = self;
        write!(
            f,
            "line {line}, column {column}: {what}\n  {text}\n  {:>column$}",
            '^'
        )
    }
}

impl std::error::Error for ProgramError {}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}
