//! One visitor, from the moment of arrival to the last step.
//!
//! A visitor does as browsers do: several connections while a page is fetched; one while it is read, kept until the app closes
//! it or somebody else needs it ([`super::readers`]); cookies; redirects within the origin; hidden fields of forms. It does not what browsers do behind a person's back: a
//! request that fails is a failure, and is not sent again unless the visitor decides to try again.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use jiff::Timestamp;

use super::clock::Moment;
use super::readers::Idle;
use super::recorder::Ended;
use super::script::{Class, RANDOM, StepScript, VisitScript};
use super::thread::Thread;
use crate::chance;
use crate::client::answer::{Failure, Head};
use crate::client::cookies::Jar;
use crate::client::http2::Asker;
use crate::client::location::{self, Leads};
use crate::client::{Answer, Connection, Request, Wants, form};
use crate::load::{Method, Protocol, Step};
use crate::record::Outcome;

/// After a failure, before somebody tries again.
const RETRY_AFTER_NS: std::ops::Range<u64> = 2_000_000_000..5_000_000_000;
/// Of one step.
const RETRIES: u32 = 2;
/// Assets at once over HTTP/2: about as many as browsers ask for before the first has come.
const STREAMS_AT_ONCE: usize = 32;
/// Hidden fields that are kept of one page.
const HIDDEN_BYTES: usize = 16 * 1024;

/// Runs a visit to its end.
pub async fn visit(thread: Rc<Thread>, number: u64, arrived: Moment) {
    let mut random = thread.script.random(thread.number, number);
    let script = thread.script.choose(&mut random);
    // No other thread's visitors have these.
    let address = number * u64::from(thread.script.load.limits.threads) + thread.number;
    let visitor = Visitor {
        thread: &thread,
        script,
        address,
        word: thread.script.word(address),
        idle: Rc::default(),
        state: RefCell::default(),
    };
    thread.recorder.borrow_mut().scheduled(arrived, thread.clock.now());
    visitor.run(&mut random, arrived).await;
}

struct Visitor<'a> {
    thread: &'a Thread,
    script: &'a VisitScript,
    /// Decides where it comes from.
    address: u64,
    word: String,
    /// Connections that are not in use. Never borrowed over a wait.
    idle: Rc<Idle>,
    /// Never borrowed over a wait.
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    jar: Jar,
    /// Indices into [`VisitScript::assets`] of what the browser has.
    fetched: Vec<u16>,
    /// Of the last page: where its forms go, and their hidden fields.
    forms: Vec<form::Form>,
    last_page: Option<String>,
}

/// What is to be fetched, redirects included.
struct Ask<'b> {
    class: Class,
    method: Method,
    path: Cow<'b, str>,
    body: Option<Vec<u8>>,
    expect: &'b [u16],
    from: Option<&'b str>,
    wants: Wants,
}

/// Where a request goes.
enum Way<'b> {
    /// A connection of its own, kept or new.
    Own,
    /// One that others use at the same time.
    Over(&'b Asker),
}

struct Fetched {
    outcome: Outcome,
    /// Where the last redirect led.
    path: String,
    page: Vec<u8>,
}

/// A limit of the generator was reached: the visit cannot go on, and that is nobody's failure but ours.
struct NotOffered;

impl Visitor<'_> {
    async fn run(&self, random: &mut fastrand::Rng, arrived: Moment) {
        let mut meant = arrived;
        for (step, script) in self.script.visit.steps.iter().zip(&self.script.steps) {
            if random.f64() >= step.probability {
                return;
            }
            if step.think_median_ms > 0 {
                meant = meant.after_ns(chance::think_ns(random, step.think_median_ms)).on_grid_behind();
                if !self.read_until(meant).await {
                    return;
                }
            } else if meant >= self.thread.end {
                return;
            }
            let path = &step.paths[random.usize(..step.paths.len())];
            let mut tries = 0;
            loop {
                let Ok(well) = self.step(step, script, path, meant).await else { return };
                if well {
                    break;
                }
                if tries == RETRIES || random.f64() >= self.script.visit.retries {
                    return;
                }
                tries += 1;
                meant = self.thread.clock.now().after_ns(random.u64(RETRY_AFTER_NS)).on_grid_behind();
                if !self.read_until(meant).await {
                    return;
                }
            }
            meant = self.thread.clock.now();
        }
    }

    /// Waits, with one connection kept as long as the app keeps it. False: the run is over by then.
    async fn read_until(&self, moment: Moment) -> bool {
        self.idle.borrow_mut().truncate(1);
        let mut until = pin!(self.thread.pace.until(moment.min(self.thread.end)));
        let _reading = self.thread.readers.enter(&self.idle);
        poll_fn(|cx| {
            let until = until.as_mut().poll(cx);
            // Whether a connection has ended is asked again when it is needed.
            if until.is_pending() {
                self.idle.borrow_mut().retain_mut(|connection| connection.poll_ended(cx).is_pending());
            }
            until
        })
        .await;
        if moment >= self.thread.end {
            return false;
        }
        self.thread.recorder.borrow_mut().scheduled(moment, self.thread.clock.now());
        true
    }

    /// Takes one step: a page with what belongs to it. Whether all was well with the page.
    async fn step(
        &self,
        step: &Step,
        script: &StepScript,
        path: &str,
        meant: Moment,
    ) -> Result<bool, NotOffered> {
        let path = self.with_word(path);
        let body = (step.method == Method::Post).then(|| self.form(step, &path));
        let from = self.state.borrow_mut().last_page.take();
        let ask = Ask {
            class: script.class,
            method: step.method,
            path,
            body,
            expect: &step.expect,
            from: from.as_deref(),
            wants: if script.wants_page { Wants::Page } else { Wants::Nothing },
        };
        let fetched = self.fetch(&Way::Own, ask, meant).await?;
        if script.wants_page {
            self.keep_forms(&fetched);
        }
        let path = fetched.path;
        if fetched.outcome == Outcome::Ok && self.script.visit.fetches_assets && !script.assets.is_empty() {
            // Boxed: few visitors are at this at any time, and most of what a visitor holds would be room for it.
            Box::pin(self.fetch_assets(&script.assets, &path)).await;
        }
        self.state.borrow_mut().last_page = Some(path);
        Ok(fetched.outcome == Outcome::Ok)
    }

    /// Fetches what the browser does not have yet, a few at a time.
    async fn fetch_assets(&self, assets: &[u16], page: &str) {
        let meant = self.thread.clock.now();
        let new = {
            let mut state = self.state.borrow_mut();
            let new: Vec<u16> =
                assets.iter().copied().filter(|asset| !state.fetched.contains(asset)).collect();
            state.fetched.extend(&new);
            new
        };
        let limits = &self.thread.script.load.limits;
        let protocol = self.thread.client.protocol();
        let at_once = match protocol {
            Protocol::Http1 => limits.connections_per_visit as usize,
            Protocol::Http2 => STREAMS_AT_ONCE,
        };
        let next = Cell::new(0);
        let worker = async |way: &Way<'_>| {
            while let Some(asset) = new.get(next.replace(next.get() + 1)) {
                let ask = Ask {
                    class: self.thread.script.asset_class,
                    method: Method::Get,
                    path: Cow::Borrowed(&self.script.assets[usize::from(*asset)]),
                    body: None,
                    expect: &[],
                    from: Some(page),
                    wants: Wants::Nothing,
                };
                // An asset that is missing spoils no visit; it is counted.
                let _: Result<Fetched, NotOffered> = self.fetch(way, ask, meant).await;
            }
        };
        let kept =
            if protocol == Protocol::Http2 { poll_fn(|cx| Poll::Ready(self.kept(cx))).await } else { None };
        if let Some(Connection::Http2(mut connection)) = kept {
            let way = Way::Over(&connection.asker());
            connection.with(all(at_once.min(new.len()), || worker(&way))).await;
            self.idle.borrow_mut().push(Connection::Http2(connection));
        } else {
            // Over HTTP/2 a page whose connection has ended: one opens a new one, and all go over that, one by one.
            let at_once = if protocol == Protocol::Http2 { 1 } else { at_once };
            all(at_once.min(new.len()), || worker(&Way::Own)).await;
        }
    }

    /// Asks, follows redirects, and counts each request.
    async fn fetch(&self, way: &Way<'_>, ask: Ask<'_>, mut meant: Moment) -> Result<Fetched, NotOffered> {
        let (thread, limits) = (self.thread, &self.thread.script.load.limits);
        let patience_ends = meant.after(thread.script.patience);
        let Ask { class, mut method, path, mut body, mut expect, from, wants } = ask;
        let mut path = path.into_owned();
        let mut redirects = 0;
        loop {
            let ticket = thread.recorder.borrow_mut().begin(class, meant);
            let sent = Cell::new(meant);
            let mut cookies = Vec::new();
            self.state.borrow().jar.write(&path, &mut cookies);
            let request =
                Request { method, path: &path, from, cookies: &cookies, body: body.as_deref(), wants };
            let asked = {
                let asking = pin!(self.send(way, &request, || sent.set(thread.clock.now())));
                thread.pace.answer(asking, patience_ends).await
            };
            let now = thread.clock.now();
            let answer = match asked {
                Some(Ok(answer)) => Ok(answer),
                Some(Err(Failure::NotOffered)) => {
                    thread.recorder.borrow_mut().withdraw(ticket);
                    return Err(NotOffered);
                }
                Some(Err(Failure::Refused)) => Err(Outcome::Refused),
                Some(Err(Failure::Broken)) => Err(Outcome::Broken),
                Some(Err(Failure::TooMuch)) => Err(Outcome::TooMuch),
                None => Err(Outcome::GaveUp),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(outcome) => {
                    thread.recorder.borrow_mut().end(ticket, Ended { outcome, answered: None });
                    self.tell_failure(&path, outcome, None);
                    return Ok(Fetched { outcome, path, page: Vec::new() });
                }
            };
            for cookie in &answer.head.cookies {
                self.state.borrow_mut().jar.set(cookie, &path, Timestamp::now());
            }
            let leads = self.leads(&answer.head, &path);
            let outcome = match &leads {
                Leads::Here(_) if redirects == limits.redirects => Outcome::TooMuch,
                Leads::Here(_) => Outcome::Ok,
                // Nothing of what it leads to was measured. Files may well be kept elsewhere.
                Leads::Elsewhere if expect.is_empty() && class != thread.script.asset_class => {
                    Outcome::Status
                }
                Leads::Elsewhere | Leads::Nowhere => judge(&answer.head, expect),
            };
            // The clock on the wall, by which the kernel timed it, may have been set meanwhile.
            let arrived = thread.clock.moment(answer.arrived).min(now).max(sent.get());
            let answered = Some((arrived, sent.get()));
            thread.recorder.borrow_mut().end(ticket, Ended { outcome, answered });
            self.tell_failure(&path, outcome, Some(answer.head.status));
            let next = match leads {
                Leads::Here(next) if outcome == Outcome::Ok => next,
                _ => return Ok(Fetched { outcome, path, page: answer.page }),
            };
            redirects += 1;
            if expect.contains(&answer.head.status) {
                // It was what was asked for; what it leads to only has to be there.
                expect = &[];
            }
            // As browsers do: only 307 and 308 keep what was sent.
            if !matches!(answer.head.status, 307 | 308) && method == Method::Post {
                (method, body) = (Method::Get, None);
            }
            (path, meant) = (next, now);
        }
    }

    async fn send(
        &self,
        way: &Way<'_>,
        request: &Request<'_>,
        sent: impl FnOnce(),
    ) -> Result<Answer, Failure> {
        let client = &self.thread.client;
        if let Way::Over(asker) = way {
            return (*asker).clone().ask(client, request, sent).await;
        }
        // Asked with the waker that it has already, so that it need not take another.
        let mut connection = match poll_fn(|cx| Poll::Ready(self.kept(cx))).await {
            Some(connection) => connection,
            None => {
                if client.is_full() {
                    self.thread.readers.make_room();
                }
                Box::pin(Connection::open(client, self.address)).await?
            }
        };
        let answer = connection.ask(client, request, sent).await?;
        if answer.head.keeps_connection {
            self.idle.borrow_mut().push(connection);
        }
        Ok(answer)
    }

    /// A connection that was kept and has not ended since.
    fn kept(&self, cx: &mut Context<'_>) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.poll_ended(cx).is_pending() {
                return Some(connection);
            }
        }
    }

    fn leads(&self, head: &Head, path: &str) -> Leads {
        let client = &self.thread.client;
        location::follow(head.status, head.location.as_deref(), client.scheme, &client.origin.authority, path)
    }

    fn resolve(&self, to: &str, path: &str) -> Option<String> {
        location::resolve(to, self.thread.client.scheme, &self.thread.client.origin.authority, path)
    }

    fn with_word<'b>(&self, text: &'b str) -> Cow<'b, str> {
        if text.contains(RANDOM) { text.replace(RANDOM, &self.word).into() } else { text.into() }
    }

    /// Which request it was that failed, if one did: as the profile has it, and so the same for all visitors.
    fn tell_failure(&self, path: &str, outcome: Outcome, status: Option<u16>) {
        if !matches!(outcome, Outcome::Ok | Outcome::Shed) {
            let path = path.replace(&self.word, RANDOM);
            self.thread.recorder.borrow_mut().tell(&path, outcome, status);
        }
    }

    /// What is filled in, and what the last page wants sent along.
    fn form(&self, step: &Step, path: &str) -> Vec<u8> {
        let state = self.state.borrow();
        let filled: Vec<(&str, Cow<'_, str>)> =
            step.form.iter().map(|(name, value)| (name.as_str(), self.with_word(value))).collect();
        let form = state.forms.iter().find(|form| form.action == path);
        let hidden = form.into_iter().flat_map(|form| &form.hidden);
        let hidden = hidden.filter(|(name, _)| !filled.iter().any(|(filled, _)| filled == name));
        let mut out = Vec::new();
        form::encode(
            filled
                .iter()
                .map(|(name, value)| (*name, &**value))
                .chain(hidden.map(|(name, value)| (name.as_str(), value.as_str()))),
            &mut out,
        );
        out
    }

    /// Keeps hidden fields of the forms that this visit will send.
    fn keep_forms(&self, fetched: &Fetched) {
        let mut room = HIDDEN_BYTES;
        let mut forms = Vec::new();
        for mut form in form::scan(&fetched.page) {
            let action = match form.action.trim() {
                "" => Some(fetched.path.clone()),
                action => self.resolve(action, &fetched.path),
            };
            let Some(action) = action else { continue };
            let bytes: usize = form.hidden.iter().map(|(name, value)| name.len() + value.len()).sum();
            if self.script.posts.iter().any(|post| *self.with_word(post) == action) && bytes <= room {
                room -= bytes;
                form.action = action;
                forms.push(form);
            }
        }
        self.state.borrow_mut().forms = forms;
    }
}

fn judge(head: &Head, expect: &[u16]) -> Outcome {
    if expect.contains(&head.status) {
        return Outcome::Ok;
    }
    match head.status {
        429 => Outcome::Shed,
        503 if head.asks_to_retry => Outcome::Shed,
        200..=399 if expect.is_empty() => Outcome::Ok,
        _ => Outcome::Status,
    }
}

/// Runs `count` futures of a kind at once, to their ends.
async fn all<'b, F: Future<Output = ()> + 'b>(count: usize, mut make: impl FnMut() -> F) {
    let mut running: Vec<Pin<Box<dyn Future<Output = ()> + 'b>>> =
        (0..count).map(|_| Box::pin(make()) as _).collect();
    poll_fn(|cx| {
        running.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, asks_to_retry: bool, expect: &[u16]) -> Outcome {
        judge(&Head { asks_to_retry, ..Head::new(status) }, expect)
    }

    #[test]
    fn what_counts_as_success_is_what_was_expected() {
        assert_eq!(judged(200, false, &[]), Outcome::Ok);
        assert_eq!(judged(304, false, &[]), Outcome::Ok);
        assert_eq!(judged(404, false, &[404]), Outcome::Ok);
        assert_eq!(judged(200, false, &[404]), Outcome::Status);
        assert_eq!(judged(500, true, &[]), Outcome::Status);
    }

    #[test]
    fn an_app_that_wants_less_says_so() {
        assert_eq!(judged(429, false, &[]), Outcome::Shed);
        assert_eq!(judged(503, true, &[200]), Outcome::Shed);
        assert_eq!(judged(503, false, &[]), Outcome::Status);
    }
}
