//! Which process runs when: a pure value that can be printed and parsed.

use std::fmt;
use std::iter;
use std::str::FromStr;

use crate::rng::Rng;

/// A number of calls of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The number of the process: the first one is 0 and is printed as `a`.
    pub who: usize,
    pub calls: usize,
}

/// The turns. After them each process runs to its end: first the one after the process of the
/// last turn, and that process last. So `a12` is one preemption, after the twelfth call of the
/// first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Turn>);

impl Schedule {
    /// Preempts one process, once.
    pub fn of_one(who: usize, calls: usize) -> Self {
        Self(vec![Turn { who, calls }])
    }

    /// Two to five turns of processes that make so many calls if they are not disturbed. Half
    /// of the turns are short, since the calls that matter are often close together.
    pub fn random(rng: &mut Rng, lens: &[usize]) -> Self {
        let mut turns: Vec<Turn> = Vec::new();
        for _ in 0..2 + rng.below(4) {
            let who = match turns.last() {
                Some(last) => (last.who + 1 + rng.below(lens.len() - 1)) % lens.len(),
                None => rng.below(lens.len()),
            };
            let is_short = !turns.is_empty() && rng.flip();
            let longest = if is_short { 6 } else { lens[who].max(1) };
            let calls = 1 + rng.below(longest);
            turns.push(Turn { who, calls });
        }
        Self(turns)
    }

    pub fn turns(&self) -> &[Turn] {
        &self.0
    }

    /// The order in which `count` processes run to their ends.
    pub fn rest(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let last = self.0.last().map_or(count - 1, |turn| turn.who);
        (1..=count).map(move |nth| (last + nth) % count)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (gap, Turn { who, calls }) in iter::once("").chain(iter::repeat(" ")).zip(&self.0) {
            write!(f, "{gap}{}{calls}", letter(*who))?;
        }
        Ok(())
    }
}

/// The letter of a process.
pub fn letter(who: usize) -> char {
    char::from(b'a' + who as u8)
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let turn = |text: &str| {
            let mut letters = text.chars();
            let who = letters.next().filter(char::is_ascii_lowercase)?;
            let calls = letters.as_str().parse().ok()?;
            let who = who as usize - 'a' as usize;
            Some(Turn { who, calls })
        };
        text.split_whitespace()
            .map(|it| turn(it).ok_or_else(|| format!("{it:?} is not a turn, such as a12")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[test]
fn a_printed_schedule_can_be_parsed() {
    for said in ["a12", "a1 b30 a4", "c0 a7", ""] {
        let schedule: Schedule = said.parse().unwrap();
        assert_eq!(schedule.to_string(), said);
    }
    assert_eq!("b7".parse(), Ok(Schedule::of_one(1, 7)));
    for wrong in ["a", "12", "A1", "a1b2", "a-1", "é1"] {
        assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
    }
}

#[test]
fn the_preempted_process_ends_last() {
    let order = |said: &str, count| -> Vec<usize> {
        let schedule: Schedule = said.parse().unwrap();
        schedule.rest(count).collect()
    };
    assert_eq!(order("a12", 2), [1, 0]);
    assert_eq!(order("a12 b3", 2), [0, 1]);
    assert_eq!(order("b12", 3), [2, 0, 1]);
    assert_eq!(order("", 2), [0, 1]);
}

#[test]
fn random_schedules_take_turns_and_follow_from_their_seed() {
    let lens = [100, 1, 30];
    let made = |seed| {
        let mut rng = Rng::new(seed);
        (0..200).map(move |_| Schedule::random(&mut rng, &lens))
    };
    assert!(made(1).eq(made(1)) && !made(1).eq(made(2)));
    for schedule in made(1) {
        let turns = schedule.turns();
        assert!((2..=5).contains(&turns.len()), "{schedule}");
        assert!(turns.windows(2).all(|two| two[0].who != two[1].who));
        let is_within = |turn: &Turn| (1..=lens[turn.who].max(6)).contains(&turn.calls);
        assert!(turns.iter().all(is_within), "{schedule}");
    }
}
