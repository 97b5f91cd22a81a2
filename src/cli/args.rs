//! The arguments: parsing, validation and help texts.

// Named, since the fuzz targets include this file by its path.
#[path = "args/mistyped.rs"]
mod mistyped;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

/// The shortest and the longest interval of a watch.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// Keep a byte-identical, always-openable copy of a ZODB FileStorage (Data.fs)
/// on a second machine.
///
/// Makes one pass: reads MASTER and updates SLAVE. Each is a Data.fs, or a
/// directory that contains one.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    override_usage = "fssync [OPTIONS] MASTER SLAVE\n       fssync --watch [OPTIONS] MASTER SLAVE\n       fssync off [--force] [OPTIONS] SLAVE\n       fssync on [--force] [OPTIONS] SLAVE\n       fssync status [OPTIONS] SLAVE [--against MASTER | --local] [--max-age SECONDS]\n       fssync verify [--quick] [--orphans] [OPTIONS] SLAVE [--against MASTER]\n       fssync serve PATH...",
    after_help = "Exit codes: 0 in sync, or made so; 1 failure; 2 usage; 10 syncing is off; 11 another pass \
                  is running; 12 master unreachable; 13 slave in use; 14 slave out of date (status --max-age); 20 slave diverged; 30 master \
                  damaged; 31 slave damaged"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,

    /// The file to read, which ZODB serves: PATH, [user@]host:/path or
    /// ssh://[user@]host[:port]/path
    #[arg(required = true, value_parser = OsStringValueParser::new().try_map(mistyped::master))]
    pub(crate) master: Option<OsString>,

    /// The file to write: the copy on this machine
    #[arg(required = true)]
    pub(crate) slave: Option<PathBuf>,

    /// Copy the whole master; set the slave aside if it has transactions of its own
    #[arg(long)]
    pub(crate) full: bool,

    /// Keep running, and replicate each transaction as it is committed
    #[arg(long, conflicts_with_all = ["full", "dry_run"])]
    pub(crate) watch: bool,

    /// With --watch: poll the master at least every SECONDS
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval, requires = "watch")]
    pub(crate) interval: Duration,

    /// With -q: print a line only when the outcome changes, again every TIME (such as 1h or
    /// 30min) while it lasts, and when the slave is in sync again
    #[arg(long, value_name = "TIME", value_parser = time_span, requires = "quiet", conflicts_with_all = ["watch", "dry_run"])]
    pub(crate) remind: Option<Duration>,

    /// Report what a pass would do and why; change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) blobs: BlobArgs,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Whether blob files are copied, and where they are.
#[derive(Debug, clap::Args)]
pub(crate) struct BlobArgs {
    /// Copy the blob files too: no transaction becomes visible before its blobs
    #[arg(long, conflicts_with = "no_blobs")]
    pub(crate) blobs: bool,

    /// Copy only Data.fs, although it may refer to blob files
    #[arg(long, conflicts_with_all = ["master_blobs", "slave_blobs", "recheck_blobs"])]
    pub(crate) no_blobs: bool,

    /// The master's blob directory, if it is not ../blobstorage, blobstorage or blobs
    /// (implies --blobs)
    #[arg(long, value_name = "DIR")]
    pub(crate) master_blobs: Option<String>,

    /// The slave's blob directory (implies --blobs)
    #[arg(long, value_name = "DIR")]
    pub(crate) slave_blobs: Option<PathBuf>,

    /// Compare every blob with the master again, by digests (implies --blobs)
    #[arg(long, conflicts_with = "watch")]
    pub(crate) recheck_blobs: bool,

    /// Keep the blobs that a pack of the master removes for DAYS
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = days)]
    pub(crate) keep_packed: Duration,
}

/// How to reach the master.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Treat the master as unreachable after SECONDS without a response
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// The program that connects to another host, with its arguments
    #[arg(short = 'e', long, value_name = "CMD", default_value = "ssh")]
    pub(crate) rsh: String,

    /// The command that runs fssync on that host
    #[arg(long, value_name = "CMD", default_value = "fssync")]
    pub(crate) remote_fssync: String,
}

/// The form of the result.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object on standard output, for other programs
    #[arg(long)]
    pub(crate) json: bool,

    /// Show a progress bar for long operations
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,
}

/// The options of every subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// A switch: FILE must contain SYNCING=1, or nothing is done
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) status_file: Option<PathBuf>,

    /// The format of log lines
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Log more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log nothing for exit codes 0, 10 and 11, and one line for others; a warning is one
    /// line, too
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Switch syncing off: after this returns, nothing is written to SLAVE
    Off {
        #[command(flatten)]
        target: Target,

        /// Switch off even if SLAVE does not exist and no pass was ever made for it
        #[arg(long)]
        force: bool,
    },
    /// Switch syncing on, unless SLAVE is in use or has transactions of its own
    On {
        #[command(flatten)]
        target: Target,

        /// Skip the check of SLAVE; a pass still does not overwrite its own transactions
        #[arg(long)]
        force: bool,
    },
    /// Show the replication status and what a failover would lose (read-only)
    Status(StatusArgs),
    /// Check every record of SLAVE, its index and its blobs (does not change SLAVE)
    Verify(VerifyArgs),
    /// Serve files at or below PATH, read-only, on standard input and output: the
    /// master's end of a connection
    Serve {
        /// Also serve the usual blob directories of each Data.fs: ../blobstorage if it is in a
        /// directory `filestorage`, otherwise blobstorage and blobs beside it
        #[arg(long)]
        blobs: bool,
        /// A Data.fs, a blob directory, or a directory above them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The slave to switch
    pub(crate) slave: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The slave to report on
    pub(crate) slave: PathBuf,

    /// Compare SLAVE with this master instead of the one that passes recorded: the lag,
    /// and what a pass would do
    #[arg(long, value_name = "MASTER")]
    pub(crate) against: Option<OsString>,

    /// Examine only SLAVE, and do not ask the recorded master
    #[arg(long, conflicts_with = "against")]
    pub(crate) local: bool,

    /// Exit with 14 if SLAVE was last in sync more than SECONDS ago
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) max_age: Option<Duration>,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The slave to check
    pub(crate) slave: PathBuf,

    /// Check only the structure, without the data of the objects
    #[arg(long)]
    pub(crate) quick: bool,

    /// Compare SLAVE with this master by digests: which transactions and blobs differ,
    /// and which only one of the two has
    #[arg(long, value_name = "MASTER")]
    pub(crate) against: Option<OsString>,

    /// The blob directory of SLAVE, if it is not the one into which passes copy blobs
    #[arg(long, value_name = "DIR")]
    pub(crate) slave_blobs: Option<PathBuf>,

    /// With --against: the master's blob directory, if it is not ../blobstorage,
    /// blobstorage or blobs
    #[arg(long, value_name = "DIR", requires = "against")]
    pub(crate) master_blobs: Option<String>,

    /// Search the blob directory for files to which SLAVE does not refer
    #[arg(long)]
    pub(crate) orphans: bool,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// On a terminal
    Auto,
    /// Even without a terminal
    Always,
    /// Never
    Never,
}

fn days(text: &str) -> Result<Duration, String> {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    let days: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(days * SECONDS_PER_DAY)
        .map_err(|_| "must be a number of days, 0 or more".to_owned())
}

/// A time with its unit, such as `1h` or `1h 30min`, or a number of seconds.
fn time_span(text: &str) -> Result<Duration, String> {
    if let Ok(span) = seconds(text) {
        return Ok(span);
    }
    let span: Option<SignedDuration> = text.parse().ok();
    match span.map(Duration::try_from) {
        Some(Ok(span)) if !span.is_zero() => Ok(span),
        _ => Err("must be a positive time, such as 1h, 30min or 90s".to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be a number of seconds from 0.01 to 86400".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be a positive number of seconds".to_owned()),
    }
}
