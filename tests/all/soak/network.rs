//! The network between the two machines, which can fail.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::fuse::Served;
use crate::sshd::{Sshd, url_at};

/// How the second machine reads the first one's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over ssh, with a key that permits nothing else.
    Ssh,
    /// On a network file system.
    Mount,
}

/// How the network fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections break, and new ones are not answered.
    Broken,
    /// Data is lost without an error.
    Silent,
}

/// The connection from the second machine to the first one's file.
pub enum Network {
    Ssh {
        link: Link,
        rsh: String,
        master: PathBuf,
    },
    Mount(Served),
}

impl Network {
    pub fn new(route: Route, master: &Path) -> Self {
        let directory = master.parent().expect("a directory");
        match route {
            Route::Ssh => {
                let serve = format!(
                    "command=\"{} serve {}\",restrict",
                    env!("CARGO_BIN_EXE_fssync"),
                    directory.display()
                );
                Self::Ssh {
                    link: Link::to(Sshd::get().port()),
                    rsh: Sshd::get().rsh(&serve),
                    master: master.to_owned(),
                }
            }
            Route::Mount => Self::Mount(Served::directory(directory)),
        }
    }

    /// The arguments with which a pass reads the master: options, and the name of the master.
    pub fn master_arguments(&self) -> Vec<String> {
        match self {
            Self::Ssh { link, rsh, master } => {
                vec!["-e".to_owned(), rsh.clone(), url_at(link.port, master)]
            }
            Self::Mount(served) => vec![served.file("Data.fs").display().to_string()],
        }
    }

    /// Cuts the network; a mount can only become silent.
    pub fn cut(&self, how: Cut) {
        match self {
            Self::Ssh { link, .. } => link.set(Some(how)),
            Self::Mount(served) => served.stop_answering_at(0),
        }
    }

    pub fn heal(&self) {
        match self {
            Self::Ssh { link, .. } => link.set(None),
            Self::Mount(served) => served.answer(),
        }
    }
}

/// How long a link takes at most to notice that it was cut.
const NOTICES_AFTER: Duration = Duration::from_millis(50);

/// A port that forwards connections to another port, unless the link is cut.
pub struct Link {
    port: u16,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Default)]
struct State {
    cut: Option<Cut>,
    /// How often connections were broken; older connections end.
    breaks: u64,
}

impl Link {
    fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let link = Self {
            port: listener.local_addr().expect("its address").port(),
            state: Arc::default(),
            is_over: Arc::default(),
        };
        let (state, is_over) = (Arc::clone(&link.state), Arc::clone(&link.is_over));
        thread::spawn(move || {
            for near in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let begun = *state.lock().unwrap();
                if begun.cut == Some(Cut::Broken) {
                    continue;
                }
                if let (Ok(near), Ok(far)) = (near, TcpStream::connect(("127.0.0.1", target))) {
                    forward(near, far, &state, begun.breaks);
                }
            }
        });
        link
    }

    fn set(&self, cut: Option<Cut>) {
        let mut state = self.state.lock().unwrap();
        state.cut = cut;
        state.breaks += u64::from(cut == Some(Cut::Broken));
    }
}

impl Drop for Link {
    /// Breaks all connections, and ends the thread that listens.
    fn drop(&mut self) {
        self.set(Some(Cut::Broken));
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Forwards the data of a connection in both directions, in two threads.
fn forward(near: TcpStream, far: TcpStream, state: &Arc<Mutex<State>>, breaks: u64) {
    let copies = (near.try_clone(), far.try_clone());
    let (Ok(near_copy), Ok(far_copy)) = copies else {
        return;
    };
    for (from, to) in [(near, far), (far_copy, near_copy)] {
        let state = Arc::clone(state);
        thread::spawn(move || {
            pump(&from, &to, &state, breaks);
            let _ = from.shutdown(Shutdown::Read);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// Forwards data in one direction, until the end or a break.
fn pump(mut from: &TcpStream, mut to: &TcpStream, state: &Mutex<State>, breaks: u64) {
    let mut buffer = vec![0; 65_536];
    from.set_read_timeout(Some(NOTICES_AFTER))
        .expect("a timeout");
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return,
        };
        loop {
            let now = *state.lock().unwrap();
            if now.breaks != breaks {
                return;
            }
            if now.cut.is_none() {
                break;
            }
            thread::sleep(NOTICES_AFTER);
        }
        if to.write_all(&buffer[..got]).is_err() {
            return;
        }
    }
}
