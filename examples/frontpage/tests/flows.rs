//! The service as its visitors see it: the real binary, a real PostgreSQL, plain HTTP.

mod support;

use support::{Browser, Cluster, Instance};

/// What a person does on a first visit, in order, each step visible in the next page.
#[test]
fn a_newcomer_signs_up_submits_votes_comments_and_finds_the_story_again() {
    let cluster = Cluster::start();
    cluster.migrate();
    let instance = Instance::start(&cluster);
    let mut ada = Browser::new(&instance);

    // Before logging in, a vote leads to the log-in page, and so does submitting.
    assert_eq!(ada.get("/submit").location(), "/login?next=%2Fsubmit");

    ada.get("/signup?next=/submit");
    let signed_up =
        ada.send("/signup", &[("name", "Ada"), ("password", "a good password"), ("next", "/submit")]);
    assert_eq!((signed_up.status, signed_up.location()), (303, "/submit"));
    assert!(signed_up.header("set-cookie").contains("HttpOnly; SameSite=Lax"));
    assert!(ada.get("/").body.contains("/user/ada"));

    // The author's own vote comes with the story; taking it back and giving it again is visible each time.
    ada.get("/submit");
    let url = "https://www.xylophones.example/history";
    let submitted = ada.send("/submit", &[("title", "The quiet xylophone"), ("url", url), ("text", "")]);
    let item = submitted.location().to_owned();
    let page = ada.get(&item).body;
    assert!(page.contains("The quiet xylophone") && page.contains("xylophones.example"));
    assert!(page.contains("<b>1</b>") && page.contains("Take my vote back"));
    assert_eq!(ada.send(&format!("{item}/unvote"), &[("next", item.as_str())]).location(), item);
    assert!(ada.get(&item).body.contains("<b>0</b>"));
    ada.send(&format!("{item}/vote"), &[]);
    ada.send(&format!("{item}/vote"), &[]);
    assert!(ada.get(&item).body.contains("<b>1</b>"), "voting twice counts once");

    // A comment, and an answer to it, which stands one step to the right.
    let said = ada.send(&format!("{item}/comment"), &[("text", "First things first.")]);
    let (_, comment) = said.location().split_once("#comment-").unwrap();
    let comment = comment.to_owned();
    assert!(ada.get(&format!("/reply/{comment}")).body.contains("First things first."));
    ada.send(&format!("{item}/comment"), &[("text", "Indeed."), ("parent", comment.as_str())]);
    let page = ada.get(&item).body;
    assert!(page.contains("2 comments") && page.contains("comment d1"));
    // An answer has to stay within its story.
    let strayed = ada.send("/item/1/comment", &[("text", "Lost."), ("parent", comment.as_str())]);
    assert_eq!(strayed.status, 404);

    // Words are found in their other forms too.
    assert!(ada.get("/search?q=xylophones+quietly").body.contains(&format!("href=\"{url}\"")));
    assert!(ada.get("/search?q=%22xylophone+quiet%22").body.contains("Nothing was found"));
    assert!(ada.get("/new").body.contains("The quiet xylophone"));
    assert!(ada.get("/user/ada").body.contains("1 story"));
    assert!(ada.get("/user/ada/comments").body.contains("Indeed."));
}

/// What one visitor types must reach others as text only, and only a visitor's own pages may act for them.
#[test]
fn hostile_input_is_shown_or_refused_but_never_obeyed() {
    let cluster = Cluster::start();
    cluster.migrate();
    let instance = Instance::start(&cluster);
    let mut eve = Browser::new(&instance);
    eve.sign_up("eve");

    let title = "<script>alert('title')</script>";
    let item =
        eve.send("/submit", &[("title", title), ("url", ""), ("text", "<img src=x onerror=alert(1)>")]);
    let item = item.location().to_owned();
    eve.send(&format!("{item}/comment"), &[("text", "</article><script>alert(2)</script>\0")]);
    for page in [item.as_str(), "/new", "/user/eve", "/user/eve/comments", "/search?q=%3Cscript%3E"] {
        let page = eve.get(page);
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script") && !page.body.contains("<img src=x"));
        assert!(page.header("content-security-policy").contains("default-src 'none'"));
    }

    for url in ["javascript:alert(1)", "data:text/html,x", "https://bank.example@evil.example/"] {
        let refused = eve.send("/submit", &[("title", "A fine title"), ("url", url), ("text", "")]);
        assert_eq!(refused.status, 422, "{url}");
        assert!(refused.body.contains("role=\"alert\"") && refused.body.contains("A fine title"));
    }
    let long = "x".repeat(8_001);
    assert_eq!(eve.send(&format!("{item}/comment"), &[("text", &long)]).status, 422);
    let huge = "x".repeat(200_000);
    assert_eq!(eve.send(&format!("{item}/comment"), &[("text", &huge)]).status, 400);
    let away = eve.send(&format!("{item}/vote"), &[("next", "//evil.example/")]);
    assert_eq!(away.location(), "/");

    // A form without the session's token, or with another visitor's, changes nothing.
    let mut mallory = Browser::new(&instance);
    mallory.sign_up("mallory");
    let stolen = mallory.form_token.clone();
    for token in [None, Some(stolen.as_str())] {
        let forged = eve.send_with_token(&format!("{item}/unvote"), &[], token);
        assert_eq!(forged.status, 403);
    }
    assert!(eve.get(&item).body.contains("<b>1</b>"));
}

/// Behind a load balancer, the next request may reach another instance, and instances come and go.
#[test]
fn a_session_belongs_to_no_instance_and_ends_everywhere_at_once() {
    let cluster = Cluster::start();
    cluster.migrate();
    let first = Instance::start(&cluster);
    let mut grace = Browser::new(&first);
    grace.sign_up("grace");

    let second = Instance::start(&cluster);
    grace.goes_to(&second);
    assert!(grace.get("/").body.contains("/user/grace"));
    // The form was made by the first instance, the second one accepts it.
    assert_eq!(first.stop(), Some(0), "SIGTERM ends an instance in order");
    let submitted = grace.send("/submit", &[("title", "Still here"), ("url", ""), ("text", "Yes.")]);
    assert_eq!(submitted.status, 303);

    // Whoever kept a copy of the cookie has nothing after the owner logs out elsewhere.
    let third = Instance::start(&cluster);
    let mut copy = grace.clone();
    copy.goes_to(&third);
    assert_eq!(copy.get("/submit").status, 200);
    assert_eq!(grace.send("/logout", &[]).status, 303);
    assert_eq!(copy.get("/submit").status, 303);

    let mut wrong = Browser::new(&third);
    wrong.get("/login");
    assert_eq!(wrong.send("/login", &[("name", "grace"), ("password", "not the password")]).status, 422);
    assert_eq!(wrong.send("/login", &[("name", "nobody"), ("password", "not the password")]).status, 422);
    let back = wrong.send("/login", &[("name", "grace"), ("password", support::PASSWORD)]);
    assert_eq!(back.status, 303);
    assert!(wrong.get("/").body.contains("/user/grace"));
}

/// A restarting database is an interruption, not an end: nobody has to restart the service.
#[test]
fn the_service_says_so_while_the_database_is_away_and_recovers_by_itself() {
    let mut cluster = Cluster::start();
    cluster.migrate();
    let instance = Instance::start(&cluster);
    let mut visitor = Browser::new(&instance);
    assert_eq!(visitor.get("/healthz").status, 200);
    assert_eq!(visitor.get("/").status, 200);

    cluster.stop();
    let away = visitor.get("/");
    assert_eq!((away.status, away.header("retry-after")), (503, "1"));
    assert!(away.body.contains("Back in a moment"));
    assert_eq!(visitor.get("/healthz").status, 503);

    cluster.resume();
    assert_eq!(visitor.get("/").status, 200);
    assert_eq!(visitor.get("/healthz").status, 200);
}

/// The release command runs before every release, perhaps twice at once; and the sample it leaves is ordered rightly.
#[test]
fn migrating_again_or_twice_at_once_changes_nothing_and_the_hottest_come_first() {
    let cluster = Cluster::start();
    let runs: Vec<_> = (0..2).map(|_| cluster.migration().spawn().unwrap()).collect();
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    cluster.migrate();
    let counts = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM stories),
        (SELECT count(*) FROM comments), (SELECT count(*) FROM votes), (SELECT count(*) FROM schema_migrations)";
    assert_eq!(cluster.psql(counts), "500|2000|10000|40000|3");
    let true_counts = "SELECT bool_and(points = (SELECT count(*) FROM votes WHERE story_id = s.id)
        AND comment_count = (SELECT count(*) FROM comments WHERE story_id = s.id)) FROM stories s";
    assert_eq!(cluster.psql(true_counts), "t");

    // Points lose half their worth every six hours: 8 points now, 16 six hours ago and 32 twelve hours ago tie, and
    // one point more or an hour less decides.
    let order = "WITH given(title, points, hours) AS (VALUES
            ('late and few', 8, 0), ('one more', 17, 6), ('older', 32, 13), ('younger', 32, 11), ('unloved', 0, 0))
        INSERT INTO stories (user_id, title, body, points, created_at)
            SELECT 1, title, 'x', points * 1000000, now() - hours * interval '1 hour' FROM given;
        SELECT string_agg(title, ', ' ORDER BY hotness DESC) FROM stories WHERE body = 'x'";
    let ordered = cluster.psql(order);
    assert!(ordered.ends_with("younger, one more, late and few, older, unloved"), "{ordered}");

    let plan =
        cluster.psql("EXPLAIN SELECT * FROM stories ORDER BY hotness DESC, id DESC LIMIT 31 OFFSET 30");
    assert!(plan.contains("Index Scan using stories_by_hotness"), "{plan}");
    let instance = Instance::start(&cluster);
    let mut visitor = Browser::new(&instance);
    let front = visitor.get("/").body;
    assert!(front.find("younger") < front.find("late and few"));
    assert!(front.contains("/?page=2"));
    assert!(visitor.get("/?page=2").body.contains("class=\"rank\">31<"));
    let style = front.split('"').find(|part| part.starts_with("/assets/style.")).unwrap();
    assert!(visitor.get(style).header("cache-control").contains("immutable"));
}
