//! Many streams at once against a running service, by one program that is no bottleneck itself.

mod client;
mod events;
mod report;
mod route;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use client::{StreamError, Streamed};
use report::{Round, median};
use route::{Ask, Route};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

/// Measures tokens per second, first tokens and gaps of many streams at once.
///
/// The service must take so many connections and queued jobs: see --parallel and the limits of worker-orcd --help.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: bench-load 127.0.0.1:8080 --streams 64 --tokens 128"
)]
struct Args {
    /// Where the service listens; this machine only
    #[arg(value_name = "HOST:PORT", value_parser = loopback)]
    address: SocketAddr,
    /// Streams at once
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<u32>::new().range(1..=4096))]
    streams: u32,
    /// Most tokens of a stream
    #[arg(long, default_value_t = 128, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_048_576))]
    tokens: u32,
    /// What every stream asks; a number is added, so that no two are the same
    #[arg(long, default_value = "Write ten haiku about the sea")]
    prompt: String,
    /// 0: greedy
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// What is asked
    #[arg(long, value_enum, default_value = "execute")]
    route: Route,
    /// Further fields of the requests, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    with: Option<Map<String, Value>>,
    /// Streams that get those fields; the others don't [default: all]
    #[arg(long, requires = "with")]
    with_streams: Option<u32>,
    /// Times all of it is done
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    rounds: u32,
    /// Seconds that a stream may take
    #[arg(long, default_value_t = 120, value_parser = RangedU64ValueParser::<u64>::new().range(1..=3600))]
    limit_s: u64,
    /// Prints the medians as JSON
    #[arg(long)]
    json: bool,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "give HOST:PORT, such as 127.0.0.1:8080".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("this is not a loopback address; it is a load for one's own service".to_owned())
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("give a JSON object: {error}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        let round = report::round(&streams(args, number).await?);
        if !args.json {
            print(&format!("round {}", number + 1), &round)?;
        }
        rounds.push(round);
    }
    let medians = Round {
        tokens: rounds.iter().map(|round| round.tokens).sum(),
        tokens_per_s: median(&rounds, |round| round.tokens_per_s),
        first_ms: [0, 1, 2].map(|i| median(&rounds, |round| round.first_ms[i])),
        gap_ms: [0, 1, 2].map(|i| median(&rounds, |round| round.gap_ms[i])),
    };
    if args.json {
        let out = json!({
            "streams": args.streams,
            "tokens_in_all": medians.tokens,
            "tokens_per_s": medians.tokens_per_s,
            "first_ms": medians.first_ms,
            "gap_ms": medians.gap_ms,
        });
        writeln!(std::io::stdout(), "{out}")?;
    } else {
        print("median ", &medians)?;
    }
    Ok(())
}

fn print(name: &str, round: &Round) -> std::io::Result<()> {
    let ranks = |[half, most, last]: [f64; 3]| format!("{half:.1} / {most:.1} / {last:.1} ms");
    writeln!(
        std::io::stdout(),
        "{name}: {:.0} tok/s, first token {}, between pieces {} (p50 / p99 / last)",
        round.tokens_per_s,
        ranks(round.first_ms),
        ranks(round.gap_ms)
    )
}

/// All streams of a round, once every one has ended. Connections are opened ahead, as clients keep theirs: a machine
/// whose queue of new connections overflows lets one wait for a second.
async fn streams(args: &Args, round: u32) -> Result<Vec<Streamed>, StreamError> {
    let limit = Duration::from_secs(args.limit_s);
    let mut connections = Vec::new();
    for _ in 0..args.streams {
        connections.push(client::connect(args.address, limit).await?);
    }
    let mut running = JoinSet::new();
    for (i, connection) in (0..args.streams).zip(connections) {
        let more = i < args.with_streams.unwrap_or(args.streams);
        let body = args.route.body(&Ask {
            prompt: format!("{} {i}", args.prompt),
            tokens: args.tokens,
            temperature: args.temperature,
            seed: u64::from(round) << 32 | u64::from(i),
            extra: args.with.as_ref().filter(|_| more),
        });
        let body = Bytes::from(body.to_string());
        running.spawn(client::stream(connection, args.route, body, limit));
    }
    running.join_all().await.into_iter().collect()
}
