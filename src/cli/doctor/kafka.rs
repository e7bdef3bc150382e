//! The brokers, from the name to the permissions.
//!
//! The protocol tells no version, so what feedmill needs of one is looked at instead: topic ids and transactions.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use rdkafka::error::RDKafkaErrorCode;
use tokio::{
    net::{TcpStream, lookup_host},
    runtime::Handle,
    task::spawn_blocking,
};

use super::{
    acl::{self, Resource},
    needs::Needs,
    report::{Report, Verdict},
};
use crate::{
    config::{Config, Kafka},
    failure::{Failure, chain},
    kafka::{
        admin::{self, Admin, AdminError, DescribedTopic, Operation},
        settings,
    },
    topics::layout,
};

/// Room for the client library to give up by itself, with a reason.
const GRACE: Duration = Duration::from_secs(3);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Topic id of brokers that have none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

type Described = Result<DescribedTopic, RDKafkaErrorCode>;

/// What every Kafka check needs.
struct Kafkas<'a> {
    config: &'a Config,
    kafka: &'a Kafka,
    needs: &'a Needs,
    /// Longest time for one check.
    limit: Duration,
}

/// What is checked once a broker lets us in.
const INSIDE: [&str; 5] = [
    "kafka.cluster",
    "kafka.version",
    "kafka.transactions",
    "kafka.permissions",
    "kafka.topics",
];

pub async fn check(config: &Config, needs: &Needs, report: &mut Report) -> Result<(), Failure> {
    let kafka = &config.kafka;
    let this = Kafkas {
        config,
        kafka,
        needs,
        limit: settings::call_timeout(kafka) * 2 + GRACE,
    };
    let mut reached = false;
    for broker in &kafka.brokers {
        let limit = this.limit + CONNECT_TIMEOUT * 2;
        reached |= report
            .check("kafka.broker", broker, limit, this.broker(broker))
            .await?;
    }
    match reached {
        true => this.inside(report).await,
        false if kafka.brokers.is_empty() => skip(&INSIDE, "kafka.brokers is not set", report),
        false => skip(&INSIDE, "no broker can be used", report),
    }
}

fn skip(checks: &[&str], why: &str, report: &mut Report) -> Result<(), Failure> {
    for check in checks {
        report.add(check, "", Verdict::skipped(why))?;
    }
    Ok(())
}

impl Kafkas<'_> {
    async fn inside(&self, report: &mut Report) -> Result<(), Failure> {
        let kafka = self.kafka.clone();
        let connected = self
            .ask(report, INSIDE[0], "", move || Admin::connect(&kafka))
            .await;
        let admin = match answered(connected) {
            Ok(admin) => Arc::new(admin),
            Err(verdict) => {
                report.add(INSIDE[0], "", verdict)?;
                return skip(&INSIDE[1..], "the cluster does not answer", report);
            }
        };
        report
            .check(INSIDE[0], "", self.limit, self.cluster(&admin))
            .await?;
        let topics = match self.described(&admin, report).await {
            Ok(topics) => topics,
            Err(verdict) => {
                report.add(INSIDE[1], "", verdict.remedy(OLD_BROKERS))?;
                return skip(&INSIDE[2..], "the topics can't be described", report);
            }
        };
        report.add(INSIDE[1], "", version(&topics))?;
        self.transactions(report).await?;
        self.permissions(&admin, &topics, report).await?;
        self.topics(admin, &topics, report).await
    }

    async fn described(
        &self,
        admin: &Arc<Admin>,
        report: &Report,
    ) -> Result<Vec<(String, Described)>, Verdict> {
        let names: Vec<String> = self.needs.topics.keys().cloned().collect();
        let (admin, asked) = (Arc::clone(admin), names.clone());
        let described = self.ask(report, INSIDE[1], "", move || {
            admin.topics(&asked.iter().map(String::as_str).collect::<Vec<_>>())
        });
        Ok(names.into_iter().zip(answered(described.await)?).collect())
    }

    /// Makes a call that blocks.
    async fn ask<T: Send + 'static>(
        &self,
        report: &Report,
        check: &str,
        target: &str,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Verdict> {
        let called = report.wait(check, target, self.limit, spawn_blocking(call));
        called
            .await?
            .map_err(|panic| Verdict::failed(format!("the call to Kafka ended: {panic}")))
    }

    /// Whether a configured broker can be reached, and lets us in.
    async fn broker(&self, broker: &str) -> Verdict {
        let addresses = match resolve(broker).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                return Verdict::failed(format!("its name stands for no address: {reason}"))
                    .remedy("correct kafka.brokers, or the name server that this machine asks");
            }
        };
        if let Err(reason) = connect(&addresses).await {
            return Verdict::failed(format!("no TCP connection: {reason}"))
                .remedy("start the broker, open the way to it (firewall, network policy), or correct kafka.brokers");
        }
        let alone = Kafka {
            brokers: vec![broker.to_owned()],
            ..self.kafka.clone()
        };
        match spawn_blocking(move || Admin::connect(&alone)).await {
            Ok(Ok(_)) => Verdict::ok(self.way_in()),
            Ok(Err(AdminError::Unreachable { reason, .. })) => refused(&reason),
            Ok(Err(error)) => Verdict::failed(chain(&error)).remedy(LOOK_AT_SECURITY),
            Err(panic) => Verdict::failed(format!("the call to Kafka ended: {panic}")),
        }
    }

    fn way_in(&self) -> String {
        let security = &self.kafka.security;
        let protocol = security.effective_protocol();
        let tls = match protocol.uses_tls() {
            true => "with TLS",
            false => "without TLS",
        };
        match &security.username {
            Some(name) if protocol.uses_sasl() => format!("answers, {tls}, as the user {name}"),
            _ => format!("answers, {tls}"),
        }
    }

    /// The cluster, and whether each of its brokers can be reached under the address that it advertises.
    async fn cluster(&self, admin: &Arc<Admin>) -> Verdict {
        let admin = Arc::clone(admin);
        let cluster = match spawn_blocking(move || admin.cluster()).await {
            Ok(Ok(cluster)) => cluster,
            Ok(Err(error)) => return Verdict::failed(chain(&error)),
            Err(panic) => return Verdict::failed(format!("the call to Kafka ended: {panic}")),
        };
        let away =
            futures::future::join_all(cluster.brokers.iter().map(async |(number, address)| {
                match resolve(address).await {
                    Ok(addresses) => connect(&addresses).await.err(),
                    Err(reason) => Some(reason),
                }
                .map(|reason| format!("broker {number} advertises {address}: {reason}"))
            }));
        let away: Vec<String> = away.await.into_iter().flatten().collect();
        if !away.is_empty() {
            return Verdict::failed(away.join("; ")).remedy(
                "set advertised.listeners of these brokers to addresses that this machine reaches",
            );
        }
        let controller = match cluster.controller {
            Some(number) => format!("controller by broker {number}"),
            None => "no controller is known".to_owned(),
        };
        let count = match cluster.brokers.len() {
            1 => "1 broker".to_owned(),
            count => format!("{count} brokers"),
        };
        Verdict::ok(format!("{}: {count}, {controller}", cluster.id))
    }

    /// Takes a scratch transactional id of the workers' prefix over: what each of them does at its start.
    async fn transactions(&self, report: &mut Report) -> Result<(), Failure> {
        if self.needs.transactional_ids.is_empty() {
            let verdict = Verdict::skipped("these stages write outside transactions");
            report.add("kafka.transactions", "", verdict)?;
        }
        for prefix in &self.needs.transactional_ids {
            let target = format!("{prefix}*");
            let (kafka, id) = (self.kafka.clone(), format!("{prefix}doctor"));
            let tried = self.ask(report, "kafka.transactions", &target, move || {
                admin::try_transactions(&kafka, &id)
            });
            let verdict = match tried.await {
                Ok(Ok(())) => Verdict::ok("a scratch id of the prefix was taken over"),
                Ok(Err(error)) => self.no_transactions(prefix, error.rdkafka_error_code(), &error),
                Err(late) => late.remedy(TRANSACTION_LOG),
            };
            report.add("kafka.transactions", &target, verdict)?;
        }
        Ok(())
    }

    fn no_transactions(
        &self,
        prefix: &str,
        code: Option<RDKafkaErrorCode>,
        error: &rdkafka::error::KafkaError,
    ) -> Verdict {
        let failed = Verdict::failed(chain(error));
        match code {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
                let operations = [Operation::Write, Operation::Describe].into();
                let ids = Resource::TransactionalIds(prefix);
                Verdict::failed("Write is not allowed").remedy(acl::grant(
                    self.kafka,
                    ids,
                    &operations,
                ))
            }
            Some(RDKafkaErrorCode::InvalidTransactionTimeout) => failed.remedy(
                "lower kafka.transaction_timeout_secs, or raise transaction.max.timeout.ms of the brokers",
            ),
            _ => failed.remedy(TRANSACTION_LOG),
        }
    }

    async fn permissions(
        &self,
        admin: &Arc<Admin>,
        topics: &[(String, Described)],
        report: &mut Report,
    ) -> Result<(), Failure> {
        for (name, described) in topics {
            let needed = &self.needs.topics[name];
            let verdict = match described {
                Ok(topic) => self.allowed(Resource::Topic(name), needed, &topic.operations),
                Err(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    self.allowed(Resource::Topic(name), needed, &BTreeSet::new())
                }
                Err(code) if is_missing(code) => Verdict::skipped("it is not there yet"),
                Err(code) => Verdict::failed(format!("it can't be described: {code}")),
            };
            report.add("kafka.permissions", &format!("topic {name}"), verdict)?;
        }
        for (name, needed) in &self.needs.groups {
            let target = format!("group {name}");
            let asked = (Arc::clone(admin), name.clone());
            let operations = self.ask(report, "kafka.permissions", &target, move || {
                asked.0.group_operations(&asked.1)
            });
            let group = Resource::Group(name);
            let verdict = match answered(operations.await) {
                Ok(Ok(operations)) => self.allowed(group, needed, &operations),
                Ok(Err(RDKafkaErrorCode::GroupAuthorizationFailed)) => {
                    self.allowed(group, needed, &BTreeSet::new())
                }
                Ok(Err(code)) => Verdict::failed(format!("it can't be described: {code}")),
                Err(verdict) => verdict,
            };
            report.add("kafka.permissions", &target, verdict)?;
        }
        Ok(())
    }

    fn allowed(
        &self,
        resource: Resource<'_>,
        needed: &BTreeSet<Operation>,
        allowed: &BTreeSet<Operation>,
    ) -> Verdict {
        let missing: BTreeSet<Operation> = needed.difference(allowed).copied().collect();
        if !missing.is_empty() {
            return Verdict::failed(format!("{} not allowed", listed(&missing)))
                .remedy(acl::grant(self.kafka, resource, &missing));
        }
        // Of what feedmill never asks for; nobody alters a group.
        let more = allowed.contains(&Operation::Delete)
            && (allowed.contains(&Operation::Alter) || matches!(resource, Resource::Group(_)));
        Verdict::ok(match more {
            true => "everything is allowed: no ACLs are enforced, or all are granted".to_owned(),
            false => listed(needed),
        })
    }

    async fn topics(
        &self,
        admin: Arc<Admin>,
        topics: &[(String, Described)],
        report: &mut Report,
    ) -> Result<(), Failure> {
        let mut specs = layout::specs(self.config);
        let is_own = |name: &str| specs.iter().any(|spec| spec.name == name);
        let (own, others): (Vec<&str>, Vec<&str>) = topics
            .iter()
            .filter(|(_, described)| described.as_ref().is_err_and(is_missing))
            .map(|(name, _)| name.as_str())
            .partition(|name| is_own(name));
        for (missing, remedy) in [(&own, "feedmill topics create"), (&others, NOT_OURS)] {
            if !missing.is_empty() {
                let verdict = Verdict::failed(format!("not there: {}", missing.join(", ")));
                report.add("kafka.topics", "", verdict.remedy(remedy))?;
            }
        }
        let known = topics.iter().filter(|(name, _)| is_own(name)).count();
        // Whether the others fit can be seen only of those whose settings may be read.
        specs.retain(|spec| {
            topics.iter().any(|(name, described)| {
                let operations = described.as_ref().map(|topic| &topic.operations);
                *name == spec.name
                    && operations.is_ok_and(|is| is.contains(&Operation::DescribeConfigs))
            })
        });
        let (seen, hidden) = (specs.len(), known - own.len() - specs.len());
        if hidden > 0 {
            let verdict = Verdict::skipped(format!("{hidden} of them may not be described"));
            report.add("kafka.topics", "", verdict)?;
        }
        if seen == 0 {
            return Ok(());
        }
        let problems = self.ask(report, "kafka.topics", "", move || {
            Handle::current().block_on(admin.problems(&specs))
        });
        match answered(problems.await) {
            Ok(problems) if problems.is_empty() => {
                report.add(
                    "kafka.topics",
                    "",
                    Verdict::ok(format!("{seen} are there and fit")),
                )?;
            }
            Ok(problems) => {
                for problem in &problems {
                    report.add("kafka.topics", "", unfit(problem))?;
                }
            }
            Err(verdict) => {
                report.add("kafka.topics", "", verdict)?;
            }
        }
        Ok(())
    }
}

fn answered<T>(asked: Result<Result<T, AdminError>, Verdict>) -> Result<T, Verdict> {
    asked?.map_err(|error| Verdict::failed(chain(&error)))
}

fn is_missing(code: &RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(code, UnknownTopic | UnknownTopicOrPartition)
}

const OLD_BROKERS: &str =
    "feedmill needs topic ids, which Kafka has since 2.8: upgrade the brokers";

const LOOK_AT_SECURITY: &str = "compare [kafka.security] with the broker's listener";

const NOT_OURS: &str =
    "make the topic that the S3 server writes its notifications to, or correct intake.topics";

const TRANSACTION_LOG: &str = "look at the broker's log; with fewer than 3 brokers it needs transaction.state.log.replication.factor=1 and transaction.state.log.min.isr=1";

async fn resolve(broker: &str) -> Result<Vec<SocketAddr>, String> {
    let resolved = tokio::time::timeout(CONNECT_TIMEOUT, lookup_host(broker)).await;
    let resolved = resolved.map_err(|_| "the name server does not answer".to_owned())?;
    let addresses: Vec<SocketAddr> = resolved.map_err(|error| error.to_string())?.collect();
    match addresses.is_empty() {
        true => Err("the name has no address".to_owned()),
        false => Ok(addresses),
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// A broker that takes connections and does not let us in, by what librdkafka complains of.
fn refused(reason: &str) -> Verdict {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    let (what, remedy) = if says(&["certificate verify failed"]) {
        (
            "TLS: the broker's certificate is not trusted",
            "set kafka.security.ca_file to the authority that signed it, and name the broker in kafka.brokers as the certificate does",
        )
    } else if says(&["SASL", "uthentication"]) {
        (
            "SASL: the broker does not accept who we are",
            "correct kafka.security.sasl_mechanism, username and password",
        )
    } else if says(&["certificate"]) {
        (
            "TLS: the broker does not accept our certificate",
            "set kafka.security.certificate_file and key_file to a certificate that the broker's ssl.truststore knows",
        )
    } else if says(&["SSL", "ssl"]) {
        (
            "TLS: the two do not agree",
            "the listener may be one without TLS: compare kafka.security.protocol with the broker's listener",
        )
    } else {
        (
            "it takes the connection and does not answer as Kafka does",
            "the listener may be one with TLS or SASL, or no Kafka at all: compare kafka.brokers and [kafka.security] with the broker's listener",
        )
    };
    // That brokers are down is all that librdkafka knows of one that hangs up without a word.
    let seen = match says(&["brokers are down"]) {
        true => what.to_owned(),
        false => format!("{what} ({reason})"),
    };
    Verdict::failed(seen).remedy(remedy)
}

fn version(topics: &[(String, Described)]) -> Verdict {
    let ids: Vec<&str> = topics
        .iter()
        .filter_map(|(_, topic)| topic.as_ref().ok())
        .map(|topic| topic.id.as_str())
        .collect();
    if ids.is_empty() {
        return Verdict::skipped(
            "brokers do not tell it, and there is no topic whose id may be seen",
        );
    }
    match ids.contains(&NO_ID) {
        true => {
            Verdict::failed("brokers do not tell it, but topics have no ids").remedy(OLD_BROKERS)
        }
        false => Verdict::ok("brokers do not tell it; topics have ids, as since Kafka 2.8"),
    }
}

/// A problem says what is wrong, and behind a colon what to do.
fn unfit(problem: &str) -> Verdict {
    match problem.split_once(": ") {
        Some((wrong, remedy)) => Verdict::failed(wrong).remedy(remedy),
        None => Verdict::failed(problem),
    }
}

fn listed(operations: &BTreeSet<Operation>) -> String {
    let names: Vec<String> = operations.iter().map(|op| format!("{op:?}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_sasl_and_a_wrong_protocol_are_told_apart() {
        let seen = |reason: &str| refused(reason).seen;
        let tls = seen("ssl://b:9093/bootstrap: SSL handshake failed: certificate verify failed");
        assert!(tls.contains("not trusted"), "{tls}");
        let sasl = seen("sasl_ssl://b:9094/bootstrap: SASL authentication error: no");
        assert!(sasl.starts_with("SASL"), "{sasl}");
        let ours = seen("SSL handshake failed: tlsv13 alert certificate required");
        assert!(ours.contains("our certificate"), "{ours}");
        let plain = seen("SSL handshake failed: wrong version number");
        assert!(plain.contains("do not agree"), "{plain}");
        let silent = seen("ApiVersionRequest failed: Local: Timed out");
        assert!(silent.contains("does not answer as Kafka"), "{silent}");
    }
}
