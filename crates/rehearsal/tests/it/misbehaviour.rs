//! Apps that fail, and what is said of them. Every run ends in its time.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rehearsal::fetch::Fetcher;
use rehearsal::record::Outcome;
use rehearsal::site::crawl::{Crawl, Limits};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Then, answer};
use crate::run::{load, phase, run, run_until, step, visit};

#[tokio::test]
async fn an_app_that_answers_nothing_is_given_up_on() {
    let app = App::start(|_| Then::Silence);
    let began = Instant::now();
    let seen = run(&load(app.address, vec![visit(vec![step("/")])])).await;
    seen.assert_all("page", Outcome::GaveUp);
    assert!(seen.seconds.iter().all(|second| second.classes["page"].latency.is_empty()));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(seen.end.cut_short, None);
}

#[tokio::test]
async fn an_app_that_accepts_nothing_is_given_up_on() {
    // Its queue is full after one or two, and it takes none out of it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = run(&load(address, vec![visit(vec![step("/")])])).await;
    seen.assert_all("page", Outcome::GaveUp);
}

#[tokio::test]
async fn nobody_there_is_refused() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seen = run(&load(address, vec![visit(vec![step("/")])])).await;
    seen.assert_all("page", Outcome::Refused);
    assert_eq!(seen.sent("page"), seen.visits());
}

#[tokio::test]
async fn redirects_without_end_are_too_much() {
    let app = App::start(|_| answer(302, "Location: /again\r\n", ""));
    let seen = run(&load(app.address, vec![visit(vec![step("/")])])).await;
    assert_eq!(seen.outcomes("page", Outcome::TooMuch), seen.visits());
    assert_eq!(seen.outcomes("page", Outcome::Ok), seen.visits() * 5);
}

#[tokio::test]
async fn a_body_without_end_is_too_much_or_too_slow() {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let app = App::start(move |_| Then::Forever(head.to_owned(), chunk.clone()));
    let mut load = load(app.address, vec![visit(vec![step("/")])]);
    load.limits.body_bytes = 100_000;
    run(&load).await.assert_all("page", Outcome::TooMuch);
    load.limits.body_bytes = 1 << 40;
    run(&load).await.assert_all("page", Outcome::GaveUp);
}

/// All of it would be 64 MiB a page, or ten seconds.
#[tokio::test]
async fn a_page_without_an_end_is_left_where_its_limit_is_and_that_is_said() {
    let text = format!("<p>{}</p>", "x".repeat(0x4000 - 7));
    let chunk = format!("4000\r\n{text}\r\n");
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
    ] {
        let chunk = chunk.clone();
        let app = App::start(move |seen| match seen.path.as_str() {
            "/" => Then::Forever(head.to_owned(), chunk.clone()),
            _ => answer(404, "", ""),
        });
        let origin = load(app.address, Vec::new()).origin;
        let fetcher = Fetcher::new(&origin).unwrap();
        let mut crawl = Crawl::new("http", &origin.authority, Limits::default());
        let began = Instant::now();
        while let Some(ask) = crawl.next(began.elapsed()) {
            let answer = fetcher.fetch(&ask).await;
            if let Ok(answer) = &answer {
                assert!(
                    answer.body.len() <= ask.max_bytes && answer.cut == (ask.path == "/"),
                    "{}",
                    ask.path
                );
            }
            crawl.answered(&ask.path, answer);
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let site = crawl.finish().unwrap();
        assert_eq!(site.notes, ["Of a page only the first 1048576 bytes were read."]);
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_or_no_http_is_broken() {
    for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfo", "nonsense\r\n\r\n"] {
        let app = App::start(move |_| Then::Close(text.to_owned()));
        run(&load(app.address, vec![visit(vec![step("/")])])).await.assert_all("page", Outcome::Broken);
    }
}

#[tokio::test]
async fn which_requests_failed_is_told_with_their_paths_and_how() {
    let app = App::start(|_| answer(404, "", ""));
    let seen = run(&load(app.address, vec![visit(vec![step("/gone?from=news")])])).await;
    let [failed] = &seen.end.failed[..] else { panic!("{:?}", seen.end.failed) };
    assert_eq!((failed.path.as_str(), failed.outcome), ("/gone?from=news", Outcome::Status));
    assert_eq!((failed.status, failed.count), (Some(404), u64::from(seen.sent("page"))));
}

#[tokio::test]
async fn an_app_that_asks_for_less_sheds() {
    let app = App::start(|_| answer(503, "Retry-After: 1\r\n", ""));
    run(&load(app.address, vec![visit(vec![step("/")])])).await.assert_all("page", Outcome::Shed);
}

#[tokio::test]
async fn an_app_that_dies_midway_is_told_from_then_on() {
    let mut app = App::start(|_| answer(200, "", "alive"));
    let mut load = load(app.address, vec![visit(vec![step("/")])]);
    load.phases = vec![phase("all", 3_000, 50.0)];
    let dies = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        tokio::task::spawn_blocking(move || app.die()).await.unwrap();
    };
    let (seen, ()) = tokio::join!(run(&load), dies);
    let (first, last) = (&seen.seconds[0].classes["page"], &seen.seconds[2].classes["page"]);
    assert_eq!(first.outcomes.get(&Outcome::Ok), Some(&first.sent));
    assert_eq!(last.outcomes.get(&Outcome::Refused), Some(&last.sent));
    assert_eq!(seen.end.cut_short, None, "the run goes on");
}

#[tokio::test]
async fn a_kept_connection_that_the_app_closes_is_no_failure() {
    let app = App::start(|_| Then::Close("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()));
    let mut next = step("/next");
    next.think_median_ms = 50;
    let seen = run(&load(app.address, vec![visit(vec![step("/"), next])])).await;
    seen.assert_all("page", Outcome::Ok);
    assert!(app.seen().iter().any(|seen| seen.path == "/next"));
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_says_what_it_has_seen_and_that_it_was_stopped() {
    let app = App::start(|_| answer(200, "", ""));
    let mut load = load(app.address, vec![visit(vec![step("/")])]);
    load.phases = vec![phase("all", 600_000, 50.0)];
    let stop = CancellationToken::new();
    let told = async {
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        stop.cancel();
    };
    let (seen, ()) = tokio::join!(run_until(&load, stop.clone()), told);
    assert_eq!(seen.seconds.len(), 3);
    assert!(seen.outcomes("page", Outcome::Ok) > 50);
    assert!(seen.end.cut_short.unwrap().contains("told to stop"));
}
