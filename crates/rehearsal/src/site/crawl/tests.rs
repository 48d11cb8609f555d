use super::*;

/// Crawls an app, and counts what it asked for.
fn crawl(
    limits: Limits,
    app: impl Fn(&str) -> Result<Answer, NoAnswer>,
) -> (Result<Site, NothingFound>, Vec<String>) {
    let mut crawl = Crawl::new("http", "shop.example", limits);
    let mut asked = Vec::new();
    while let Some(ask) = crawl.next(Duration::ZERO) {
        let mut answer = app(&ask.path);
        if let Ok(answer) = &mut answer {
            answer.cut = answer.body.len() > ask.max_bytes;
            answer.body.truncate(ask.max_bytes);
        }
        crawl.answered(&ask.path, answer);
        asked.push(ask.path);
        assert!(asked.len() <= 1_000, "there is no end to it");
    }
    (crawl.finish(), asked)
}

fn html(body: impl Into<String>) -> Result<Answer, NoAnswer> {
    Ok(Answer {
        status: 200,
        content_type: Some("text/html; charset=utf-8".to_owned()),
        body: body.into().into_bytes(),
        ..Answer::default()
    })
}

fn status(status: u16) -> Result<Answer, NoAnswer> {
    Ok(Answer { status, ..Answer::default() })
}

fn redirect(to: &str) -> Result<Answer, NoAnswer> {
    Ok(Answer { status: 302, location: Some(to.to_owned()), ..Answer::default() })
}

fn shop(path: &str) -> Result<Answer, NoAnswer> {
    match path {
        "/" => html(
            r#"<title>Antique shop</title><link rel=stylesheet href=/app.css><a href=/maps>Maps</a><a href=/books>Books</a>
            <a href=/logout>Log out</a><a href=/maps/delete?id=3>Delete</a><a href=/catalogue.pdf>As PDF</a>
            <a href="https://other.example/">Elsewhere</a><form action=/search><input name=q></form>"#,
        ),
        "/maps" => html(
            "<script src=/maps.js></script><a href=/books>Books</a><a href=/maps/1>One</a><img src=/m.png>",
        ),
        "/books" => html("<a href=/>Home</a><form method=post action=/buy><input name=id></form>"),
        "/maps/1" => html("<a href=/books>Books</a>"),
        "/catalogue.pdf" => {
            Ok(Answer { status: 200, content_type: Some("application/pdf".to_owned()), ..Answer::default() })
        }
        _ => status(404),
    }
}

#[test]
fn pages_are_found_by_their_links_with_what_they_consist_of() {
    let (site, asked) = crawl(Limits::default(), shop);
    let site = site.unwrap();
    let found: Vec<(&str, u64)> = site.pages.iter().map(|page| (page.path.as_str(), page.hits)).collect();
    assert_eq!(found, [("/", 2), ("/books", 4), ("/maps", 2), ("/maps/1", 2)]);
    assert_eq!(site.pages[0].assets, ["/app.css"]);
    assert_eq!(site.pages[2].assets, ["/maps.js", "/m.png"]);
    assert_eq!(site.missing, Some(404));
    assert_eq!(asked, ["/", MISSING_PATH, "/maps", "/books", "/catalogue.pdf", "/maps/1"]);
}

#[test]
fn searches_are_for_words_of_the_pages() {
    let site = crawl(Limits::default(), shop).0.unwrap();
    assert_eq!(site.searches[..3], ["/search?q=antique", "/search?q=shop", "/search?q=maps"]);
}

#[test]
fn forms_that_write_are_named_and_not_sent() {
    let (site, asked) = crawl(Limits::default(), shop);
    assert!(!asked.iter().any(|path| path.starts_with("/buy")));
    assert_eq!(
        site.unwrap().notes,
        ["Forms that write are not sent, such as `/buy`: `[rehearsal.visit.NAME]` can say which may."]
    );
}

#[test]
fn an_app_that_answers_nothing_has_nothing_to_visit() {
    let (site, asked) = crawl(Limits::default(), |_| Err(NoAnswer("connection refused".to_owned())));
    let error = site.unwrap_err();
    assert_eq!(error, NothingFound::NoAnswer("connection refused".to_owned()));
    assert_eq!(error.to_string(), "`/` was not answered: connection refused");
    assert_eq!(asked.len(), 2);
}

#[test]
fn an_app_that_refuses_its_start_page_has_nothing_to_visit() {
    assert_eq!(crawl(Limits::default(), |_| status(401)).0, Err(NothingFound::Refused(401)));
}

#[test]
fn an_app_that_redirects_in_a_circle_is_left() {
    let (site, asked) = crawl(Limits::default(), |path| redirect(if path == "/a" { "/" } else { "/a" }));
    assert_eq!(site, Err(NothingFound::Endless("/".to_owned())));
    assert_eq!(asked, ["/", "/a", MISSING_PATH]);
}

#[test]
fn an_app_that_redirects_to_ever_new_places_is_left() {
    let (site, asked) = crawl(Limits::default(), |path| redirect(&format!("{path}x/")));
    assert!(matches!(site, Err(NothingFound::Endless(_))), "{site:?}");
    assert_eq!(asked.len(), 2 + Limits::default().redirects);
}

#[test]
fn a_start_page_elsewhere_is_said() {
    let (site, _) = crawl(Limits::default(), |_| redirect("https://other.example/\u{1b}[31m"));
    assert!(
        site.unwrap_err().to_string().starts_with("`/` leads to `https://other.example/\\u{1b}[31m`, which")
    );
}

/// Which asks for the same again would not find the end of it.
#[test]
fn a_start_page_that_wants_tls_is_elsewhere() {
    let (site, asked) = crawl(Limits::default(), |path| redirect(&format!("https://shop.example{path}")));
    let refused = site.unwrap_err().to_string();
    assert!(refused.starts_with("`/` leads to `https://shop.example/`, which is another site"), "{refused}");
    assert_eq!(asked, ["/", MISSING_PATH]);
}

#[test]
fn a_start_page_that_is_redirected_is_the_page_it_leads_to() {
    let (site, asked) = crawl(Limits::default(), |path| match path {
        "/" => redirect("/en"),
        "/en" => html("<a href=/en/more>more</a>"),
        "/en/more" => html(""),
        _ => status(404),
    });
    assert_eq!(
        site.unwrap().pages.iter().map(|page| page.path.as_str()).collect::<Vec<_>>(),
        ["/en", "/en/more"]
    );
    assert_eq!(asked[..2], ["/", "/en"]);
}

#[test]
fn a_page_without_an_end_is_read_to_a_limit_and_that_is_said() {
    let limits = Limits { page_bytes: 1_000, ..Limits::default() };
    let endless = || html(format!("<a href=/two>two</a>{}<a href=/three>three</a>", " ".repeat(2_000)));
    let (site, _) = crawl(limits, |path| if path.len() < 5 { endless() } else { status(404) });
    let site = site.unwrap();
    assert_eq!(site.pages.iter().map(|page| page.path.as_str()).collect::<Vec<_>>(), ["/", "/two"]);
    assert_eq!(site.notes, ["Of a page only the first 1000 bytes were read."]);
}

#[test]
fn an_app_of_endless_pages_is_crawled_to_each_of_the_limits() {
    let endless =
        |path: &str| html(format!("{}<a href={path}a/>a</a><a href={path}b/>b</a>", " ".repeat(1_000)));
    let cases = [
        (Limits { pages: 7, ..Limits::default() }, 7, "There are more pages than the 7 that were looked at."),
        (Limits { requests: 9, ..Limits::default() }, 8, "There is more to ask for than the 9 that were."),
        (Limits { bytes: 5_000, ..Limits::default() }, 4, "After 5000 bytes no more pages were read."),
    ];
    for (limits, pages, note) in cases {
        let site = crawl(limits, endless).0.unwrap();
        assert_eq!((site.pages.len(), &site.notes[..]), (pages, &[note.to_owned()][..]));
    }
    let deep = Limits { depth: 2, ..Limits::default() };
    // `/`, two below it, and two below each of these.
    assert_eq!(crawl(deep, endless).0.unwrap().pages.len(), 7);
}

#[test]
fn time_is_a_limit_too() {
    let mut crawl = Crawl::new("http", "shop.example", Limits::default());
    let ask = crawl.next(Duration::ZERO).unwrap();
    crawl.answered(&ask.path, html("<a href=/two>two</a>"));
    assert_eq!(crawl.next(Duration::from_secs(15)), None);
    let site = crawl.finish().unwrap();
    assert_eq!((site.pages.len(), site.notes.len()), (1, 1));
    assert!(site.notes[0].contains("15 seconds"));
}

#[test]
fn a_calendar_is_not_followed_for_ever() {
    let (site, _) = crawl(Limits { depth: 100, ..Limits::default() }, |path| {
        let day: u32 = path.split_once("?day=").map_or(0, |(_, day)| day.parse().unwrap());
        html(format!("<a href='/calendar?day={}'>next</a>", day + 1))
    });
    assert_eq!(site.unwrap().pages.len(), 1 + VARIANTS);
}

#[test]
fn an_app_that_answers_with_data_has_its_start_alone() {
    let (site, _) = crawl(Limits::default(), |_| {
        Ok(Answer {
            status: 200,
            content_type: Some("application/json".to_owned()),
            body: b"{}".to_vec(),
            ..Answer::default()
        })
    });
    let site = site.unwrap();
    assert_eq!((site.pages.len(), site.searches.len(), site.missing), (1, 0, Some(200)));
}

#[test]
fn pages_that_fail_are_said() {
    let (site, _) = crawl(Limits::default(), |path| match path {
        "/" => html("<a href=/broken>b</a><a href=/slow>s</a>"),
        "/broken" => status(500),
        "/slow" => Err(NoAnswer("no answer within 5 seconds".to_owned())),
        _ => status(404),
    });
    let note = "`/broken` is answered with 500; `/slow` was not answered: no answer within 5 seconds.";
    assert_eq!(site.unwrap().notes, [note]);
}
