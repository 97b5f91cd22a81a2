//! The arguments: parsing, validation and help texts.

// Named, since the fuzz targets include this file by its path.
#[path = "args/mistyped.rs"]
mod mistyped;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use fssync::config::{StorageName, options};
use jiff::SignedDuration;

/// Keep a byte-identical, always-openable copy of a ZODB FileStorage (Data.fs)
/// on a second machine.
///
/// Makes one pass: reads MASTER and updates SLAVE. Each is a Data.fs, or a
/// directory that contains one. Without the two, makes a pass for each storage
/// of the configuration file.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    override_usage = "fssync [OPTIONS] [MASTER SLAVE]\n       fssync --watch [OPTIONS] [MASTER SLAVE]\n       fssync off [--force] [OPTIONS] [SLAVE]\n       fssync on [--force] [OPTIONS] [SLAVE]\n       fssync status [OPTIONS] [SLAVE] [--against MASTER | --local] [--max-age SECONDS]\n       fssync verify [--quick] [--orphans] [OPTIONS] [SLAVE] [--against MASTER]\n       fssync doctor [OPTIONS] [MASTER SLAVE]\n       fssync config check [--print]\n       fssync config from-zeo ZEO_CONF --master HOST:\n       fssync serve PATH...\n\nWithout MASTER and SLAVE, a command works on all storages of the configuration file\n(--config FILE, $FSSYNC_CONFIG or /etc/fssync/fssync.toml), or on those named by --storage.",
    after_help = "Exit codes: 0 in sync, or made so; 1 failure; 2 usage; 10 syncing is off; 11 another pass \
                  is running; 12 master unreachable; 13 slave in use; 14 slave out of date (status --max-age); 20 slave diverged; 30 master \
                  damaged; 31 slave damaged"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,

    /// The file to read, which ZODB serves: PATH, [user@]host:/path or
    /// ssh://[user@]host[:port]/path
    // clap does not require `slave` if another argument conflicts with it.
    #[arg(requires = "slave", conflicts_with_all = ["config", "storage"])]
    #[arg(value_parser = OsStringValueParser::new().try_map(mistyped::master))]
    pub(crate) master: Option<OsString>,

    /// The file to write: the copy on this machine
    pub(crate) slave: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) site: SiteArgs,

    #[command(flatten)]
    pub(crate) extent: ExtentArgs,

    /// Keep running, and replicate each transaction as it is committed
    #[arg(long, conflicts_with_all = ["full", "whole", "dry_run"])]
    pub(crate) watch: bool,

    /// With --watch: poll the master at least every SECONDS [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = interval, requires = "watch")]
    pub(crate) interval: Option<Duration>,

    /// With -q: print a line only when the outcome changes, again every TIME (such as 1h or
    /// 30min) while it lasts, and when the slave is in sync again
    #[arg(long, value_name = "TIME", value_parser = time_span, requires = "quiet", conflicts_with_all = ["watch", "dry_run"])]
    pub(crate) remind: Option<Duration>,

    /// Write metrics for the textfile collector of node_exporter to FILE, such as
    /// /var/lib/prometheus/node-exporter/fssync.prom
    #[arg(
        long,
        value_name = "FILE",
        requires = "slave",
        conflicts_with = "dry_run"
    )]
    pub(crate) textfile: Option<PathBuf>,

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

/// How much of the slave a pass may replace.
#[derive(Debug, clap::Args)]
pub(crate) struct ExtentArgs {
    /// Make the slave the master's, whatever it contains; set transactions of its own aside
    #[arg(long)]
    pub(crate) full: bool,

    /// Like --full, but copy every byte of the master
    #[arg(long)]
    pub(crate) whole: bool,
}

/// Which storages of the configuration file a command works on.
#[derive(Debug, clap::Args)]
pub(crate) struct SiteArgs {
    /// The configuration file [default: $FSSYNC_CONFIG, or /etc/fssync/fssync.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "slave")]
    pub(crate) config: Option<PathBuf>,

    /// Work only on the storage NAME of the configuration file; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "slave")]
    pub(crate) storage: Vec<StorageName>,
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

    /// Keep the blobs that a pack of the master removes for DAYS [default: 7]
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) keep_packed: Option<Duration>,
}

/// How to reach the master.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Treat the master as unreachable after SECONDS without a response [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// The program that connects to another host, with its arguments [default: ssh]
    #[arg(short = 'e', long, value_name = "CMD")]
    pub(crate) rsh: Option<String>,

    /// The command that runs fssync on that host [default: fssync]
    #[arg(long, value_name = "CMD")]
    pub(crate) remote_fssync: Option<String>,
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
    /// Examine the set-up: what was found, and what to do (does not change MASTER or SLAVE)
    Doctor(DoctorArgs),
    /// Check the configuration file, or make one from a zeo.conf
    #[command(subcommand)]
    Config(ConfigVerb),
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

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Check the configuration file and the files that it includes
    Check {
        /// The file to check [default: $FSSYNC_CONFIG, or /etc/fssync/fssync.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,

        /// Print the configuration with all values resolved
        #[arg(long)]
        print: bool,
    },
    /// Print a configuration file with the storages of a ZEO server
    FromZeo {
        /// The zeo.conf of the master
        zeo_conf: PathBuf,

        /// The host of the masters, such as zope@first: or a directory at which its root is
        /// mounted
        #[arg(long, value_name = "HOST:")]
        master: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The slave to switch
    pub(crate) slave: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) site: SiteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The slave to report on
    pub(crate) slave: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) site: SiteArgs,

    /// Compare SLAVE with this master instead of the one that passes recorded: the lag,
    /// and what a pass would do
    #[arg(long, value_name = "MASTER", requires = "slave")]
    pub(crate) against: Option<OsString>,

    /// Examine only the slaves, and do not ask their masters
    #[arg(long, conflicts_with = "against")]
    pub(crate) local: bool,

    /// Exit with 14 if SLAVE was last in sync more than SECONDS ago
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) max_age: Option<Duration>,

    /// Print metrics for Prometheus; do not ask the masters
    #[arg(long, conflicts_with_all = ["json", "against", "max_age", "nagios"])]
    pub(crate) prometheus: bool,

    #[command(flatten)]
    pub(crate) nagios: NagiosArgs,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The check for Nagios, Icinga and the like.
#[derive(Debug, clap::Args)]
pub(crate) struct NagiosArgs {
    /// Print one line and exit as a plugin of Nagios does; do not ask the masters
    #[arg(long, conflicts_with_all = ["json", "against", "max_age"])]
    pub(crate) nagios: bool,

    /// With --nagios: a warning if SLAVE was last in sync more than SECONDS ago
    #[arg(short, long, value_name = "SECONDS", default_value = "180", value_parser = seconds, requires = "nagios")]
    pub(crate) warning: Duration,

    /// With --nagios: critical if SLAVE was last in sync more than SECONDS ago
    #[arg(short, long, value_name = "SECONDS", default_value = "600", value_parser = seconds, requires = "nagios")]
    pub(crate) critical: Duration,

    /// With --nagios: the result while syncing is off
    #[arg(long, value_enum, value_name = "RESULT", default_value_t = OffSeverity::Warning, requires = "nagios")]
    pub(crate) off: OffSeverity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OffSeverity {
    /// 0
    Ok,
    /// 1
    Warning,
    /// 2
    Critical,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The slave to check
    pub(crate) slave: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) site: SiteArgs,

    /// Check only the structure, without the data of the objects
    #[arg(long)]
    pub(crate) quick: bool,

    /// Compare SLAVE with this master by digests: which transactions and blobs differ,
    /// and which only one of the two has
    #[arg(long, value_name = "MASTER", requires = "slave")]
    pub(crate) against: Option<OsString>,

    /// Compare each storage of the configuration file with its master
    #[arg(long, conflicts_with = "slave")]
    pub(crate) compare: bool,

    /// The blob directory of SLAVE, if it is not the one into which passes copy blobs
    #[arg(long, value_name = "DIR", requires = "slave")]
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

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The master, as passes name it
    #[arg(requires = "slave")]
    pub(crate) master: Option<OsString>,

    /// The slave, as passes name it
    pub(crate) slave: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) site: SiteArgs,

    /// Check that ZEO opens SLAVE, according to its configuration FILE on this machine
    #[arg(long, value_name = "FILE")]
    pub(crate) zeo_conf: Option<PathBuf>,

    /// Passes copy the blob files, too
    #[arg(long, conflicts_with = "no_blobs")]
    pub(crate) blobs: bool,

    /// Passes copy only Data.fs
    #[arg(long)]
    pub(crate) no_blobs: bool,

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

fn days(text: &str) -> Result<Duration, &'static str> {
    options::days(number(text)?)
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

fn interval(text: &str) -> Result<Duration, &'static str> {
    options::interval(number(text)?)
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    options::seconds(number(text)?)
}

fn number(text: &str) -> Result<f64, &'static str> {
    text.parse().map_err(|_| "not a number")
}
