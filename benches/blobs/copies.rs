//! Passes over a site with blobs, compared with programs that copy trees of files.

use std::io;
use std::time::Duration;

use crate::Options;
use crate::shared::command::{Argv, Remote, argv, calm, has, must, text};
use crate::shared::contest::{self, Contender, Contest, Prepare, Row, Target};
use crate::site::Site;

/// The target for a pass that finds nothing new.
pub(crate) const MAX_NOTHING_NEW: Duration = Duration::from_millis(5);

/// The target for a pass with one new blob.
const MAX_ONE_NEW: Duration = Duration::from_millis(10);

/// The target for many new blobs, as a multiple of rsync's time.
const MAX_MANY_NEW: f64 = 0.35;

/// The target for a first copy through ssh, as a multiple of tar's time.
const MAX_THROUGH_SSH: f64 = 1.1;

/// The number of new blobs in the comparison with many.
const MANY: u64 = 1000;

/// The names of the comparisons, without numbers.
pub(crate) const NAMES: [&str; 5] = ["first copy", "ssh", "nothing new", "one new", "many new"];

/// The first copy of a site.
struct FirstCopy {
    peer: &'static str,
    /// The commands of the other program.
    commands: Vec<Argv>,
    fssync: Argv,
    target: f64,
}

/// Makes the comparisons that are wanted. The site has its first blobs.
pub(crate) fn compare(options: &Options, site: &Site, rows: &mut Vec<Row>) -> io::Result<()> {
    let copy = |command| {
        argv(
            command,
            &[&site.place.directory.join("master/."), &site.peer],
        )
    };
    let sync = || argv("sync -f", &[&site.peer]);
    if options.arguments.wants("first copy") {
        let first = |peer, command, target| FirstCopy {
            peer,
            commands: vec![copy(command), sync()],
            fssync: site.pass(&["--blobs"]),
            target,
        };
        rows.push(first_copy(
            options,
            site,
            first("cp && sync", "cp -a", 0.9),
        )?);
        if has("rsync") {
            rows.push(first_copy(
                options,
                site,
                first("rsync && sync", "rsync -a", 0.8),
            )?);
        }
    }
    if let Some(remote) = &options.arguments.ssh
        && options.arguments.wants("ssh")
    {
        rows.push(first_copy(options, site, through_ssh(site, remote))?);
    }
    if !["nothing new", "one new", "many new"]
        .iter()
        .any(|work| options.arguments.wants(work))
    {
        return Ok(());
    }
    site.put_copies_away()?;
    for commands in [copy("cp -a"), site.pass(&["--blobs"])] {
        must(&commands)?;
    }
    if options.arguments.wants("nothing new") {
        rows.push(nothing_new(options, site)?);
    }
    if options.arguments.wants("one new") {
        rows.push(new_blobs(options, site, 1)?);
        site.commit(1)?;
        println!("\nsyncs of a pass with one new blob");
        contest::print_syncs(&site.place.directory, &site.pass(&["--blobs"]))?;
    }
    if options.arguments.wants("many new") {
        rows.push(new_blobs(options, site, MANY)?);
    }
    Ok(())
}

fn first_copy(options: &Options, site: &Site, first: FirstCopy) -> io::Result<Row> {
    let without_copies = || -> Prepare<'_> { Box::new(|| site.put_copies_away()) };
    let way = if first.peer.contains("ssh") {
        " through ssh"
    } else {
        ""
    };
    let contest = Contest {
        work: format!("first copy of {} blobs{way}", options.blobs),
        peer: Some(Contender {
            name: first.peer,
            prepare: without_copies(),
            commands: first.commands,
        }),
        fssync: Contender {
            name: "fssync",
            prepare: without_copies(),
            commands: vec![first.fssync],
        },
        rounds: options.arguments.rounds(3),
        target: Target::Times(first.target),
    };
    let row = contest.run(&site.place.directory)?;
    site.assert_equal()?;
    Ok(row)
}

/// A first copy through a program that connects, and the same with tar.
fn through_ssh(site: &Site, remote: &Remote) -> FirstCopy {
    let Remote { program, host } = remote;
    let master = text(&site.place.directory.join("master"));
    let peer = text(&site.peer);
    let tar = format!("{program} {host} \"tar -C '{master}' -cf - .\" | tar -C '{peer}' -xf -");
    let mut fssync = argv(env!("CARGO_BIN_EXE_fssync"), &[]);
    fssync.extend(["-q", "--blobs"].map(String::from));
    fssync.extend(remote.arguments(&site.place.master));
    fssync.push(text(&site.place.slave));
    FirstCopy {
        peer: "tar | ssh | tar && sync",
        commands: vec![
            Argv::from(["sh".to_owned(), "-c".to_owned(), tar]),
            argv("sync -f", &[&site.peer]),
        ],
        fssync,
        target: MAX_THROUGH_SSH,
    }
}

/// rsync and its copy, without anything to prepare; `None` if it is not installed.
fn rsync<'a>(site: &'a Site, prepare: Prepare<'a>, is_durable: bool) -> Option<Contender<'a>> {
    // The slash at the end makes it copy the content of the directory.
    let from = site.place.directory.join("master/");
    let mut commands = vec![argv("rsync -a", &[&from, &site.peer])];
    if is_durable {
        commands.push(argv("sync -f", &[&site.peer]));
    }
    has("rsync").then_some(Contender {
        name: if is_durable { "rsync && sync" } else { "rsync" },
        prepare,
        commands,
    })
}

fn nothing_new(options: &Options, site: &Site) -> io::Result<Row> {
    let contest = Contest {
        work: format!("nothing new, {} blobs", options.blobs),
        peer: rsync(site, Box::new(|| Ok(())), false),
        fssync: Contender {
            name: "fssync",
            prepare: Box::new(|| Ok(())),
            commands: vec![site.pass(&["--blobs"])],
        },
        rounds: options.arguments.rounds(15),
        target: Target::Within(MAX_NOTHING_NEW),
    };
    calm(&site.place.directory)?;
    let row = contest.run(&site.place.directory)?;
    site.assert_equal()?;
    Ok(row)
}

fn new_blobs(options: &Options, site: &Site, count: u64) -> io::Result<Row> {
    let contest = Contest {
        work: format!("{count} new among {} blobs", options.blobs),
        peer: rsync(site, Box::new(|| site.commit(count)), true),
        fssync: Contender {
            name: "fssync",
            // In a round, rsync was first and has copied the new blobs already.
            prepare: Box::new(|| {
                if site.is_followed()? {
                    site.commit(count)?;
                }
                calm(&site.place.directory)
            }),
            commands: vec![site.pass(&["--blobs"])],
        },
        rounds: options.arguments.rounds(if count == 1 { 15 } else { 5 }),
        target: match count {
            1 => Target::Within(MAX_ONE_NEW),
            _ => Target::Times(MAX_MANY_NEW),
        },
    };
    let row = contest.run(&site.place.directory)?;
    site.assert_equal()?;
    Ok(row)
}
