//! What is done to the JSON of a record before it is output: its case is found, `fields`, jq, validation.

use serde::Deserialize;
use serde_json::Value;

use super::Source;
use super::fields::{self, Capture};
use super::jq::{self, Guard, Program};
use super::limits::Limits;
use super::reject::{ConvertError, Reason, Rejection, excerpt};
use super::switch::{self, Switch};
use super::validate::Schema;
use super::write::Record;

/// The steps of all records, or with a switch those of each case.
#[derive(Debug)]
pub struct Steps {
    pub switch: Option<Switch>,
    /// One, unless there is a switch.
    pub cases: Vec<Case>,
}

/// The steps of a record, in this order.
#[derive(Debug)]
pub struct Case {
    /// Only with a switch: otherwise `fields` are found while the record is parsed.
    pub fields: Option<fields::Mapping>,
    pub jq: Option<Program>,
    pub schema: Option<Schema>,
}

impl Steps {
    /// Whether records are output as they are.
    pub fn are_none(&self) -> bool {
        let is_empty =
            |case: &Case| case.fields.is_none() && case.jq.is_none() && case.schema.is_none();
        self.switch.is_none() && self.cases.iter().all(is_empty)
    }

    pub fn run_jq(&self) -> bool {
        self.cases.iter().any(|case| case.jq.is_some())
    }
}

/// What one or more records have become: JSON and JSON, and where each ends.
#[derive(Debug, Default)]
pub struct Outputs {
    pub json: Vec<u8>,
    pub ends: Vec<usize>,
}

/// Does the steps, on the thread that it is made on.
pub struct Runner<'s> {
    steps: &'s Steps,
    limits: &'s Limits,
    /// For jq.
    source: jaq_json::Val,
    guard: Guard,
    captures: Vec<Option<Capture<'s>>>,
    /// What `fields` make of a record.
    picked: Vec<u8>,
}

impl<'s> Runner<'s> {
    pub fn new(steps: &'s Steps, limits: &'s Limits, source: &'s Source) -> Self {
        let capture = |case: &'s Case| {
            let fields = case.fields.as_ref();
            fields.map(|fields| Capture::new(fields, source, limits))
        };
        Self {
            steps,
            limits,
            source: jq::source_value(source),
            guard: Guard::new(limits.jq_timeout),
            captures: steps.cases.iter().map(capture).collect(),
            picked: Vec::new(),
        }
    }

    /// Adds what becomes of `record` to `outputs`; on an error, nothing.
    pub fn run(&mut self, record: &[u8], outputs: &mut Outputs) -> Result<(), ConvertError> {
        let (bytes, count) = (outputs.json.len(), outputs.ends.len());
        let done = self.try_run(record, outputs);
        if done.is_err() {
            outputs.json.truncate(bytes);
            outputs.ends.truncate(count);
        }
        done
    }

    fn try_run(&mut self, record: &[u8], outputs: &mut Outputs) -> Result<(), ConvertError> {
        let steps = self.steps;
        let mut case = 0;
        let mut json = record;
        if let Some(switch) = &steps.switch {
            let value = parse(record)?;
            case = switch
                .case(&value)
                .map_err(|rejection| shown(rejection, record))?;
            if let Some(capture) = &mut self.captures[case] {
                self.picked.clear();
                switch::capture(&value, capture)
                    .and_then(|()| {
                        capture.write_record(&mut Record::new(&mut self.picked, self.limits))
                    })
                    .map_err(|error| error.complete(|rejection| show(rejection, record)))?;
                json = &self.picked;
            }
        }
        let case = &steps.cases[case];
        let first = outputs.ends.len();
        match &case.jq {
            Some(program) => self.run_jq(program, json, outputs)?,
            None => {
                outputs.json.extend_from_slice(json);
                outputs.ends.push(outputs.json.len());
            }
        }
        match &case.schema {
            Some(schema) => validate(schema, outputs, first),
            None => Ok(()),
        }
    }

    fn run_jq(
        &self,
        program: &Program,
        json: &[u8],
        outputs: &mut Outputs,
    ) -> Result<(), ConvertError> {
        let Outputs { json: out, ends } = outputs;
        let most = ends.len() + self.limits.jq_outputs;
        let mut record = Record::new(out, self.limits);
        self.guard.begin();
        program.run(json, &self.source, &self.guard, |value| {
            if ends.len() == most {
                let message = format!(
                    "a record becomes more than {} by jq",
                    self.limits.jq_outputs
                );
                return Err(Rejection::because(Reason::TooManyOutputs, message).into());
            }
            jq::write_value(value, self.limits.depth, &mut record)?;
            ends.push(record.end());
            Ok(())
        })
    }
}

fn validate(schema: &Schema, outputs: &Outputs, first: usize) -> Result<(), ConvertError> {
    let mut start = match first {
        0 => 0,
        _ => outputs.ends[first - 1],
    };
    for &end in &outputs.ends[first..] {
        schema.check(&parse(&outputs.json[start..end])?)?;
        start = end;
    }
    Ok(())
}

/// The JSON that we wrote ourselves, which is no deeper than its limit.
fn parse(json: &[u8]) -> Result<Value, ConvertError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.disable_recursion_limit();
    Value::deserialize(&mut deserializer).map_err(|error| {
        // Numbers beyond what the library holds, if anything.
        Rejection::because(Reason::InvalidValue, error.to_string()).into()
    })
}

fn shown(mut rejection: Box<Rejection>, record: &[u8]) -> Box<Rejection> {
    show(&mut rejection, record);
    rejection
}

fn show(rejection: &mut Rejection, record: &[u8]) {
    if rejection.excerpt.is_none() {
        rejection.excerpt = excerpt(record);
    }
}
