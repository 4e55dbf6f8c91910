//! Segment's faults.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox::segment::{Behaviour, Call};

use super::dice::Dice;
use super::event;

/// Statuses that Segment's documentation calls retryable, and that Envoy retries.
const RETRYABLE: [u16; 7] = [408, 460, 500, 502, 503, 504, 520];
/// Statuses that Stigg gets at once.
const PERMANENT: [u16; 4] = [400, 403, 501, 505];

/// Decides how the stand-in treats each call, by its event's number and how often that event has arrived.
#[derive(Clone)]
pub struct Faults {
    seed: u64,
    /// How long Envoy waits for one answer.
    per_try_timeout: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    calls: HashMap<Option<usize>, u64>,
    tally: BTreeMap<&'static str, usize>,
}

impl Faults {
    /// Each seed gives different faults.
    pub fn new(seed: u64, per_try_timeout: Duration) -> Self {
        Faults { seed, per_try_timeout, state: Arc::default() }
    }

    /// How often each fault occurred.
    pub fn tally(&self) -> BTreeMap<&'static str, usize> {
        self.state.lock().unwrap().tally.clone()
    }

    /// Decides on this call.
    pub fn decide(&self, call: &Call) -> Behaviour {
        let number = event::number(&call.body, call.write_key.as_deref());
        let state = &mut *self.state.lock().unwrap();
        let calls = state.calls.entry(number).or_default();
        *calls += 1;
        let key = number.map_or(u64::MAX, |number| number as u64);
        let (what, behaviour) = self.one_of_them(number, Dice::new([self.seed, key, *calls]));
        *state.tally.entry(what).or_default() += 1;
        behaviour
    }

    fn one_of_them(&self, number: Option<usize>, mut dice: Dice) -> (&'static str, Behaviour) {
        let kept_but_500 = Behaviour::Answer { status: 500, headers: Vec::new(), body: "{}".to_owned(), accept: true };
        // A few events never get an answer, however often they are delivered.
        match number.map(|number| event::shared(number) % 800) {
            Some(100) => return ("answered with a retryable status", Behaviour::status(500)),
            Some(300) => return ("answered with a permanent status", Behaviour::status(400)),
            Some(500) => return ("kept, but answered 500", kept_but_500),
            Some(0) => return ("slow", Behaviour::Accept.after(2 * self.per_try_timeout)),
            _ => {}
        }
        let delay = self.per_try_timeout * u32::try_from(dice.below(150)).unwrap() / 100;
        match dice.below(1000) {
            0..40 => ("answered with a retryable status", Behaviour::status(*dice.pick(&RETRYABLE))),
            40..50 => ("answered with a permanent status", Behaviour::status(*dice.pick(&PERMANENT))),
            50..65 => ("answered 429", Behaviour::status(429)),
            65..80 => ("answered 429", Behaviour::too_many_requests(1)),
            80..95 => ("kept, but answered 500", kept_but_500),
            // Few, because each also ends other calls on the same connection.
            95..99 => ("reset before it was kept", Behaviour::ResetBeforeAccept),
            99..103 => ("reset after it was kept", Behaviour::ResetAfterAccept),
            103..108 => ("slow, then reset after it was kept", Behaviour::ResetAfterAccept.after(delay)),
            108..140 => ("slow", Behaviour::Accept.after(delay)),
            _ => ("accepted", Behaviour::Accept),
        }
    }
}
