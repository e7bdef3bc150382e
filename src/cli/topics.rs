//! `feedmill topics create | check | accept-hole`.

use anyhow::anyhow;
use clap::Subcommand;

use super::{say, text::quoted};
use crate::{
    config::Config,
    convert,
    failure::Failure,
    kafka::admin::{self, Admin, Made},
    retry,
    sweep::watched_places,
    topics::{Topics, layout},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the topics that are not there yet
    #[command(
        after_help = "Example: FEEDMILL_KAFKA__BROKERS=localhost:9092 feedmill topics create"
    )]
    Create,
    /// Say whether the topics fit; exit code 4 when they do not
    #[command(after_help = "Example: feedmill topics check --profile production")]
    Check,
    /// Go on behind a hole in the log of a partition of the events topic, or of a retry topic
    ///
    /// A hole is a committed offset that the log no longer has, that somebody reset, or that was never there beside
    /// existing state. feedmill stops at one, because events may be lost in it. This commits a valid position, with the
    /// workers stopped, and says what to announce again.
    #[command(after_help = "Example: feedmill topics accept-hole 3")]
    AcceptHole {
        /// Partition of the topic
        partition: i32,
        /// Retry topic that has the hole [default: the events topic]
        #[arg(long, value_name = "NAME")]
        topic: Option<String>,
        /// Offset to go on at [default: the committed one, or the nearest the log has]
        #[arg(long)]
        offset: Option<i64>,
    },
}

pub async fn run(config: &Config, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create => create(config).await,
        Command::Check => check(config).await,
        Command::AcceptHole {
            partition,
            topic,
            offset,
        } => accept_hole(config, topic, partition, offset),
    }
}

async fn create(config: &Config) -> Result<(), Failure> {
    let specs = layout::specs(config);
    let admin = Admin::connect(&config.kafka).map_err(Failure::service)?;
    for (topic, made) in admin
        .create(&specs, config.kafka.replication)
        .await
        .map_err(Failure::service)?
    {
        match made {
            Made::Created => say(format_args!("created   {topic}"))?,
            Made::WasThere => say(format_args!("was there {topic}"))?,
        }
    }
    // A topic that was there may be another one than ours; one that was just made is seen by all brokers soon.
    let mut problems = Vec::new();
    for _ in 0..50 {
        problems = admin.problems(&specs).await.map_err(Failure::service)?;
        if problems.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(unfit(&problems))
}

async fn check(config: &Config) -> Result<(), Failure> {
    let admin = Admin::connect(&config.kafka).map_err(Failure::service)?;
    let problems = admin
        .problems(&layout::specs(config))
        .await
        .map_err(Failure::service)?;
    if problems.is_empty() {
        say("the topics fit")?;
        return Ok(());
    }
    for problem in problems {
        say(problem)?;
    }
    Err(Failure::Findings)
}

fn unfit(problems: &[String]) -> Failure {
    Failure::service(anyhow!("make the topics fit:\n  {}", problems.join("\n  ")))
}

fn accept_hole(
    config: &Config,
    topic: Option<String>,
    partition: i32,
    offset: Option<i64>,
) -> Result<(), Failure> {
    let places = watched_places(config)
        .map_err(|error| Failure::usage(anyhow!(error).context("read the match of a feed")))?;
    // Says clearly when Kafka can't be reached.
    drop(Admin::connect(&config.kafka).map_err(Failure::service)?);
    let topics = Topics::with_prefix(&config.kafka.topic_prefix);
    let topic = topic.unwrap_or_else(|| topics.events.clone());
    let stage = match topics.tier_of(&topic) {
        Some(tier) => retry::stage_name(tier),
        None if topic == topics.events => convert::STAGE.to_owned(),
        None => {
            return Err(Failure::usage(anyhow!(
                "find a hole in {topic}: only {} and the topics {} have readers that stop at one",
                topics.events,
                topics.retry_names()
            )));
        }
    };
    let group = format!("{}.{stage}", config.kafka.group);
    let accepted = admin::accept_hole(&config.kafka, &group, &topic, partition, offset)
        .map_err(Failure::service)?;
    let before = accepted
        .before
        .map_or_else(|| "none".to_owned(), |offset| offset.to_string());
    let (low, high) = accepted.log;
    say(format_args!(
        "{} [{partition}]: committed {before} -> {} (the log has {low} to {high})",
        topic, accepted.offset
    ))?;
    say(
        "objects whose events are in the hole have to be announced again, for each watched bucket and prefix:",
    )?;
    for place in places {
        say(format_args!("  feedmill backfill {}", quoted(&place)))?;
    }
    Ok(())
}
