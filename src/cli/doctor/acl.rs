//! The commands that grant what is missing in Kafka.

use std::collections::BTreeSet;

use crate::{
    cli::text::quoted,
    config::{Kafka, SecurityProtocol},
    kafka::admin::Operation,
};

/// What ACLs are put on.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    /// All transactional ids that begin so.
    TransactionalIds(&'a str),
}

/// The command that grants these operations to feedmill; an administrator runs it.
pub fn grant(kafka: &Kafka, resource: Resource<'_>, operations: &BTreeSet<Operation>) -> String {
    let mut words = vec![
        "kafka-acls.sh --bootstrap-server".to_owned(),
        kafka.brokers.first().cloned().unwrap_or_default(),
    ];
    if kafka.security.effective_protocol() != SecurityProtocol::Plaintext {
        words.push("--command-config admin.properties".to_owned());
    }
    words.push("--add --allow-principal".to_owned());
    words.push(quoted(&principal(kafka)).into_owned());
    let more = |other: &Operation| matches!(other, Operation::Read | Operation::Write);
    let implied = operations.iter().any(more);
    for operation in operations {
        // Reading and writing include it.
        if !(implied && *operation == Operation::Describe) {
            words.push(format!("--operation {operation:?}"));
        }
    }
    words.push(match resource {
        Resource::Topic(name) => format!("--topic {}", quoted(name)),
        Resource::Group(name) => format!("--group {}", quoted(name)),
        Resource::TransactionalIds(prefix) => format!(
            "--transactional-id {} --resource-pattern-type prefixed",
            quoted(prefix)
        ),
    });
    words.join(" ")
}

/// Who feedmill is to the brokers, where that can be known from here.
fn principal(kafka: &Kafka) -> String {
    let security = &kafka.security;
    let protocol = security.effective_protocol();
    match &security.username {
        Some(name) if protocol.uses_sasl() => format!("User:{name}"),
        _ if protocol.uses_sasl() => "User:NAME".to_owned(),
        _ if security.certificate_file.is_some() => "User:CN=NAME-IN-THE-CERTIFICATE".to_owned(),
        _ => "User:ANONYMOUS".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    fn kafka(username: &str) -> Kafka {
        Kafka {
            brokers: vec!["kafka-1:9093".into(), "kafka-2:9093".into()],
            security: Security {
                username: Some(username.into()),
                ..Security::default()
            },
            ..Kafka::default()
        }
    }

    #[test]
    fn a_grant_is_one_command_and_odd_names_are_quoted() {
        let all = [Operation::Read, Operation::Write, Operation::Describe].into();
        assert_eq!(
            grant(&kafka("feedmill"), Resource::Topic("fm.events"), &all),
            "kafka-acls.sh --bootstrap-server kafka-1:9093 --command-config admin.properties --add --allow-principal User:feedmill --operation Read --operation Write --topic fm.events"
        );
        let write = [Operation::Write].into();
        let command = grant(
            &kafka("o'neill $HOME"),
            Resource::TransactionalIds("my group.convert-"),
            &write,
        );
        assert!(
            command.contains(r"'User:o'\''neill $HOME' --operation Write"),
            "{command}"
        );
        assert!(
            command.ends_with(
                "--transactional-id 'my group.convert-' --resource-pattern-type prefixed"
            ),
            "{command}"
        );
    }

    #[test]
    fn without_a_name_the_principal_is_what_a_broker_calls_a_stranger() {
        let plain = Kafka {
            brokers: vec!["kafka-1:9092".into()],
            ..Kafka::default()
        };
        let command = grant(&plain, Resource::Group("g"), &[Operation::Read].into());
        assert_eq!(
            command,
            "kafka-acls.sh --bootstrap-server kafka-1:9092 --add --allow-principal User:ANONYMOUS --operation Read --group g"
        );
    }
}
