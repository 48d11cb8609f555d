//! What one visitor does, as the app sees it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use rehearsal::load::{Step, Visit};
use rehearsal::record::Outcome;

use crate::app::{App, Seen, Then, answer};
use crate::run::{load, phase, post, run, step, visit};

/// So few that most runs have one visit; which, the seed decides.
async fn one_visit(app: &App, visit: Visit) -> crate::run::Seen {
    let mut load = load(app.address, vec![visit]);
    // Who comes at its end takes all steps.
    load.phases = vec![phase("all", 1_000, 100.0), phase("rest", 1_000, 0.0)];
    load.limits.visitors = 1;
    load.limits.connections = 10;
    load.limits.threads = 1;
    run(&load).await
}

/// Requests of the visitor who came first.
fn first_visitor(app: &App) -> Vec<Seen> {
    let seen = app.seen();
    let first = seen[0].from;
    seen.into_iter().filter(|seen| seen.from == first).collect()
}

const FORM: &str =
    "<form action=\"signup\" method=post><input type=hidden name=token value=\"s&amp;cret\"></form>";

/// Signs nobody up without the cookie and the token that it gave.
fn sign_up(seen: &Seen) -> Then {
    let cookie = seen.field("cookie").unwrap_or_default();
    match seen.path.as_str() {
        "/form" => answer(200, "Content-Type: text/html\r\nSet-Cookie: session=1; Path=/\r\n", FORM),
        "/signup" if cookie == "session=1" && seen.body.contains("token=s%26cret") => answer(
            303,
            "Location: /welcome\r\nSet-Cookie: session=; Max-Age=0; Path=/\r\nSet-Cookie: user=7\r\n",
            "",
        ),
        "/welcome" if cookie == "user=7" => answer(200, "", "hello"),
        _ => answer(403, "", "who are you?"),
    }
}

#[tokio::test]
async fn a_visitor_signs_up_with_cookies_a_form_and_its_hidden_token() {
    let app = App::start(sign_up);
    let form = post("/signup", &[("name", "{random}"), ("mail", "{random}@shop.example")]);
    let seen = one_visit(&app, visit(vec![step("/form"), form])).await;
    seen.assert_all("page", Outcome::Ok);
    // The answer to the form and the page it leads to.
    assert_eq!(seen.outcomes("write", Outcome::Ok), seen.sent("page") * 2);
    assert_eq!(seen.sent("write"), seen.sent("page") * 2);
    let requests = first_visitor(&app);
    let paths: Vec<&str> = requests.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["/form", "/signup", "/welcome"]);
    let sent = &requests[1];
    assert_eq!(sent.field("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(sent.field("origin"), Some(format!("http://{}", app.address).as_str()));
    assert_eq!(sent.field("referer"), Some(format!("http://{}/form", app.address).as_str()));
    let fields: Vec<&str> = sent.body.split('&').collect();
    let [name, mail, "token=s%26cret"] = fields[..] else { panic!("{fields:?}") };
    let word = name.strip_prefix("name=").unwrap();
    assert_eq!(mail, format!("mail={word}%40shop.example"), "one word for the whole visit");
    assert!(word.len() == 12 && requests[2].method == "GET" && requests[2].body.is_empty());
}

/// Each step of a search is a run of its own with the seed of all: whoever signs up under a name that is taken would fail for no
/// fault of the app's.
#[tokio::test]
async fn a_name_that_may_be_taken_once_is_free_in_every_run_of_the_same_seed() {
    let taken = Mutex::new(BTreeSet::new());
    let app = App::start(move |seen| {
        let is_new = taken.lock().unwrap().insert((seen.path.clone(), seen.body.clone()));
        answer(if is_new { 200 } else { 409 }, "", "")
    });
    let visit = visit(vec![step("/{random}"), post("/signup", &[("name", "{random}")])]);
    let mut visits = Vec::new();
    for _ in 0..2 {
        let seen = run(&load(app.address, vec![visit.clone()])).await;
        seen.assert_all("page", Outcome::Ok);
        seen.assert_all("write", Outcome::Ok);
        visits.push(seen.visits());
    }
    assert_eq!(visits[0], visits[1], "the seed still says when they come");
}

#[tokio::test]
async fn assets_are_fetched_once_over_a_few_connections_and_a_reader_keeps_one() {
    let app = App::start(|seen| {
        if seen.path.starts_with("/asset") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        answer(200, "", "x")
    });
    let assets: Vec<String> = (0..20).map(|at| format!("/asset/{at}")).collect();
    let page = Step { assets: assets.clone(), ..step("/") };
    let next = Step { think_median_ms: 20, assets, ..step("/next") };
    let mut visit = visit(vec![page, next]);
    let seen = one_visit(&app, visit.clone()).await;
    seen.assert_all("asset", Outcome::Ok);
    assert_eq!(seen.sent("asset"), seen.visits() * 20, "{:?}", seen.seconds);
    let requests = first_visitor(&app);
    let mut connections: Vec<usize> = requests.iter().map(|seen| seen.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!((2..=6).contains(&connections.len()), "{connections:?}");
    let next = requests.iter().find(|seen| seen.path == "/next").unwrap();
    assert!(connections.contains(&next.connection) && requests.last().unwrap().path == "/next");

    visit.fetches_assets = false;
    let app = App::start(|_| answer(200, "", "x"));
    one_visit(&app, visit).await;
    assert!(app.paths().iter().all(|path| !path.starts_with("/asset")), "a machine that reads fetches none");
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_and_count_as_requests() {
    let app = App::start(|seen| match seen.path.as_str() {
        "/" => answer(302, "Location: a/../b?c\r\n", ""),
        "/b?c" => answer(307, "Location: http://elsewhere.example/\r\n", ""),
        _ => answer(404, "", ""),
    });
    let pays_elsewhere = Step { expect: vec![307], ..step("/") };
    let seen = one_visit(&app, visit(vec![pays_elsewhere])).await;
    seen.assert_all("page", Outcome::Ok);
    assert_eq!(app.paths()[..2], ["/", "/b?c"]);
    assert_eq!(seen.sent("page") as usize, app.paths().len());
    assert!(app.paths().iter().all(|path| path == "/" || path == "/b?c"));
}

/// As of an app that wants TLS and is asked without: nothing of it was measured.
#[tokio::test]
async fn a_page_that_leads_to_another_site_is_a_failure_and_a_file_that_does_is_not() {
    let app = App::start(|seen| match seen.path.as_str() {
        "/page" => answer(200, "", "x"),
        path => answer(301, &format!("Location: https://{}{path}\r\n", seen.field("host").unwrap()), ""),
    });
    let page = Step { assets: vec!["/file".to_owned()], ..step("/page") };
    let away = Step { class: "away".to_owned(), ..step("/away") };
    let never = Step { class: "never".to_owned(), ..step("/never") };
    let seen = one_visit(&app, visit(vec![page, away, never])).await;
    seen.assert_all("page", Outcome::Ok);
    seen.assert_all("asset", Outcome::Ok);
    seen.assert_all("away", Outcome::Status);
    assert_eq!(seen.sent("never"), 0);
    assert_eq!(seen.end.failed[0].status, Some(301));

    let app = App::start(|_| answer(302, "", ""));
    one_visit(&app, visit(vec![step("/")])).await.assert_all("page", Outcome::Ok);
}

#[tokio::test]
async fn what_is_expected_is_success_and_a_visit_ends_with_what_is_not() {
    let app = App::start(|seen| answer(if seen.path == "/missing" { 404 } else { 200 }, "", ""));
    let missing = Step { class: "missing".to_owned(), expect: vec![404], ..step("/missing") };
    let other = Step { class: "other".to_owned(), expect: vec![404], ..step("/there") };
    let never = Step { class: "never".to_owned(), ..step("/never") };
    let seen = one_visit(&app, visit(vec![missing, other, never])).await;
    seen.assert_all("missing", Outcome::Ok);
    seen.assert_all("other", Outcome::Status);
    assert_eq!(seen.sent("never"), 0);
}

#[tokio::test]
async fn a_step_is_taken_as_often_as_its_probability_says() {
    let app = App::start(|_| answer(200, "", ""));
    let second = Step { class: "second".to_owned(), probability: 0.3, ..step("/2") };
    let mut load = load(app.address, vec![visit(vec![step("/"), second])]);
    load.phases = vec![phase("all", 1_000, 1_000.0), phase("rest", 1_000, 0.0)];
    let seen = run(&load).await;
    let share = f64::from(seen.sent("second")) / f64::from(seen.sent("page"));
    assert!((share - 0.3).abs() < 0.06, "{share}");
}

#[tokio::test]
async fn each_visitor_comes_from_an_address_of_its_own() {
    let app = App::start(|_| answer(200, "", ""));
    let seen = run(&load(app.address, vec![visit(vec![step("/"), step("/2")])])).await;
    let mut from: Vec<_> = app.seen().iter().map(|seen| seen.from).collect();
    from.sort_unstable();
    from.dedup();
    assert_eq!(from.len() as u32, seen.visits());
}

#[tokio::test]
async fn who_sees_a_failure_tries_again_at_most_twice_and_not_at_once() {
    let app = App::start(|_| answer(500, "", ""));
    let mut load = load(app.address, vec![Visit { retries: 1.0, ..visit(vec![step("/")]) }]);
    load.phases = vec![phase("visits", 1_000, 20.0), phase("rest", 11_000, 0.0)];
    let seen = run(&load).await;
    seen.assert_all("page", Outcome::Status);
    assert_eq!(seen.sent("page"), seen.visits() * 3);
    assert_eq!(seen.seconds.len(), 12);
    assert!(seen.seconds[1].classes.is_empty(), "{:?}", seen.seconds[1]);
}

/// Otherwise a run of an app that is slow goes on for as long as its visits have steps.
#[tokio::test]
async fn no_step_begins_when_the_run_is_over_also_where_nobody_reads_before_it() {
    let app = App::start(|_| {
        std::thread::sleep(Duration::from_millis(350));
        answer(200, "", "")
    });
    let mut load = load(app.address, vec![visit(vec![step("/"), step("/next")])]);
    load.phases = vec![phase("all", 300, 30.0)];
    let seen = run(&load).await;
    assert!(seen.outcomes("page", Outcome::Ok) > 0, "{:?}", seen.seconds);
    assert!(app.paths().iter().all(|path| path == "/"), "{:?}", app.paths());
}
