use proptest::prelude::*;

use super::*;

/// A line as the edge writes it.
fn line(second: u32, method: &str, path: &str, status: u16, agent: &str, referer: &str) -> String {
    let referer = match referer {
        "" => String::new(),
        page => format!(r#","referer":"https://shop.example{page}""#),
    };
    format!(
        concat!(
            r#"{{"time":"2026-02-03T04:{:02}:{:02}.000007Z","request_id":"r-1","trace_id":"t-1","client":"127.0.0.1","#,
            r#""method":"{}","scheme":"https","host":"shop.example","path":"{}","protocol":"HTTP/2","status":{},"#,
            r#""bytes_in":0,"bytes_out":512,"duration_us":1234,"upstream":"web","endpoint":"web-1","release":"r7","#,
            r#""upstream_us":1000,"attempts":1,"outcome":"ok","user_agent":"{}"{}}}"#,
        ),
        second / 60,
        second % 60,
        method,
        path,
        status,
        agent,
        referer,
    ) + "\n"
}

fn get(path: &str, referer: &str) -> String {
    line(0, "GET", path, 200, "Mozilla/5.0", referer)
}

fn read(lines: &[String]) -> AccessLog {
    let mut log = AccessLog::default();
    log.read(lines.concat().as_bytes()).unwrap();
    log
}

fn paths(site: &Site) -> Vec<&str> {
    site.pages.iter().map(|page| page.path.as_str()).collect()
}

#[test]
fn of_those_who_asked_lately_rehearsals_and_drills_are_none() {
    let ours = "Mozilla/5.0 (compatible; switchback-rehearsal)";
    let lines = [
        // Begun in the middle of a line, as the end of a log does.
        "rt\",\"status\":200}\n".to_owned(),
        line(10, "GET", "/", 200, "Mozilla/5.0", ""),
        line(20, "GET", "/", 200, ours, ""),
        line(30, "GET", "/", 200, "switchback-drill", ""),
        line(31, "POST", "/sign", 303, "Mozilla/5.0", ""),
        line(40, "GET", "/", 200, "", ""),
        line(50, "GET", "/", 200, ours, ""),
    ];
    let since = |time: &str| requests_of_others(lines.concat().as_bytes(), time.parse().unwrap()).unwrap();
    assert_eq!(since("2026-02-03T04:00:00Z"), 3);
    assert_eq!(since("2026-02-03T04:00:30Z"), 2);
    assert_eq!(since("2026-02-03T04:00:45Z"), 0);
}

#[test]
fn pages_come_with_the_assets_that_they_brought() {
    let log = read(&[
        get("/", ""),
        get("/app.css", "/"),
        get("/app.js?v=3", "/"),
        line(0, "GET", "/app.css", 304, "Mozilla/5.0", "/"),
        get("/books?page=2", "/"),
        get("/books.png", "/books?page=2"),
        get("/stray.png", ""),
    ]);
    let site = log.site();
    assert_eq!(paths(&site), ["/", "/books?page=2"]);
    assert_eq!(site.pages[0].assets, ["/app.css", "/app.js?v=3"]);
    assert_eq!(site.pages[1].assets, ["/books.png"]);
    let classes = Classes { landings: 1, further: 1, assets: 5, ..Classes::default() };
    assert_eq!((log.classes, log.lines), (classes, 7));
}

#[test]
fn the_first_page_is_where_most_visits_begin() {
    let mut lines = vec![get("/menu", "/"); 9];
    lines.extend(vec![get("/post/1", ""); 3]);
    lines.extend(vec![get("/", ""); 2]);
    let site = read(&lines).site();
    assert_eq!(paths(&site), ["/post/1", "/menu", "/"]);
    assert_eq!(site.pages.iter().map(|page| page.hits).collect::<Vec<_>>(), [3, 9, 2]);
}

#[test]
fn requests_are_counted_by_what_they_were_for() {
    let log = read(&[
        get("/", ""),
        get("/search?q=red", "/"),
        line(0, "GET", "/", 200, "Googlebot/2.1", ""),
        line(0, "HEAD", "/", 200, "facebookexternalhit/1.1", ""),
        line(0, "GET", "/wp-login.php", 404, "Mozilla/5.0", ""),
        line(0, "POST", "/sign", 303, "Mozilla/5.0", "/"),
        line(0, "BREW", "/pot", 418, "Mozilla/5.0", ""),
        line(0, "GET", "/broken", 500, "Mozilla/5.0", ""),
        line(0, "GET", "/", 200, "Mozilla/5.0 (compatible; switchback-rehearsal)", ""),
        line(0, "GET", "/", 200, "switchback-drill", ""),
    ]);
    let classes = Classes {
        landings: 1,
        further: 1,
        searches: 1,
        machines: 2,
        missing: 1,
        writes: 2,
        own: 2,
        ..Classes::default()
    };
    assert_eq!(log.classes, classes);
    let site = log.site();
    assert_eq!((paths(&site), &site.searches[..]), (vec!["/"], &["/search?q=red".to_owned()][..]));
    assert_eq!(site.missing, Some(404));
    assert!(site.notes[0].starts_with("2 writes of the log are not repeated"), "{:?}", site.notes);
}

#[test]
fn what_might_change_something_or_is_a_secret_is_not_asked_for_again() {
    let lines =
        ["/logout", "/item/3/delete", "/reset?token=abc", "/%C3%A9", "/ok"].map(|path| get(path, "/"));
    assert_eq!(paths(&read(&lines).site()), ["/%C3%A9", "/ok"]);
}

#[test]
fn visits_are_counted_over_time_for_a_replay() {
    let at = |second| line(second, "GET", "/", 200, "Mozilla/5.0", "");
    let log = read(&[at(0), at(0), at(2), line(2, "GET", "/books", 200, "Mozilla/5.0", "/")]);
    assert_eq!(log.rates.busiest(10), [2, 0, 1]);
}

#[test]
fn lines_that_cannot_be_read_are_passed_over_and_counted() {
    let long = format!("{{\"path\":\"{}\"}}\n", "x".repeat(2 * MAX_LINE_BYTES as usize));
    let half = get("/half", "");
    let log = read(&[
        get("/a", ""),
        "no json\n".to_owned(),
        "\n".to_owned(),
        long,
        "{\"time\":\"yesterday\",\"status\":200}\n".to_owned(),
        get("/b", ""),
        half[..half.len() / 2].to_owned(),
    ]);
    assert_eq!((log.lines, log.unreadable), (2, 4));
    let site = log.site();
    assert_eq!(paths(&site), ["/a", "/b"]);
    assert_eq!(site.notes, ["4 lines of the log could not be read."]);
}

#[test]
fn however_many_paths_there_are_those_asked_for_most_are_known() {
    let mut log = AccessLog::default();
    for at in 0..3 * MAX_PATHS {
        log.line(get(&format!("/once/{at}"), "").as_bytes());
        log.line(get(&format!("/often/{}", at % 50), "").as_bytes());
        assert!(log.pages.by_path.len() <= MAX_PATHS);
    }
    let site = log.site();
    assert_eq!(site.pages.len(), PAGES);
    assert_eq!(paths(&site).iter().filter(|path| path.starts_with("/often/")).count(), 50);
}

#[test]
fn assets_of_one_page_are_bounded_and_rare_ones_left_out() {
    let mut lines = vec![get("/", ""); 200];
    lines.extend(vec![get("/app.css", "/"); 200]);
    lines.push(get("/avatar-of-somebody.png", "/"));
    lines.extend((0..300).map(|at| get(&format!("/{at}.png"), "/")));
    let log = read(&lines);
    assert_eq!(log.pages.by_path["/"].assets.len(), MAX_ASSETS);
    assert_eq!(log.site().pages[0].assets, ["/app.css"]);
}

#[test]
fn the_mix_is_known_when_there_were_enough() {
    let mut lines = vec![get("/", ""); 800];
    lines.extend(vec![get("/other", ""); 200]);
    assert_eq!(read(&lines[..999]).mix(), None);
    lines.extend(vec![get("/books", "/"); 250]);
    lines.extend(vec![line(0, "GET", "/", 200, "Googlebot", ""); 250]);
    let mix = read(&lines).mix().unwrap();
    assert_eq!((mix.first_page, mix.second, mix.third, mix.machines), (0.8, 0.25, 0.0625, 0.2));
}

#[test]
fn a_log_is_read_across_its_rotation() {
    let mut log = AccessLog::default();
    log.read(get("/", "").as_bytes()).unwrap();
    log.read(get("/", "").as_bytes()).unwrap();
    assert_eq!((log.lines, log.site().pages[0].hits), (2, 2));
}

proptest! {
    #[test]
    fn whatever_clients_asked_for_what_comes_out_can_be_asked_for(path in "\\PC{0,30}", referer in "\\PC{0,30}") {
        let escaped = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
        let log = read(&[get("/", ""), get(&escaped(&path), &escaped(&referer)), get("/a.css", &escaped(&referer))]);
        let site = log.site();
        for page in &site.pages {
            for path in [&page.path].into_iter().chain(&page.assets) {
                prop_assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
