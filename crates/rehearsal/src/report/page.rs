//! The page: what is said first, then key figures, charts, and tables.

use super::drawing::{Drawing, MOST_MARKS};
use super::html::Html;
use super::words::{clock, of};
use super::{Document, Part, Passed, numbers};
use crate::record::Record;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const CHARTS_STYLE: &str = include_str!("uplot/uPlot.min.css");
const CHARTS_SCRIPT: &str = include_str!("uplot/uPlot.iife.min.js");
const CHARTS_LICENCE: &str = include_str!("uplot/LICENSE");

/// Nothing is fetched and nothing is sent, whatever stands in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

pub fn page(document: &Document, coarseness: usize) -> String {
    let mut html = Html::default();
    head(&mut html, document);
    html.markup("<body>\n<main>\n<header>\n").element("h1", &document.title);
    if let [part] = &document.parts[..] {
        facts(&mut html, &part.record);
    }
    html.markup("</header>\n");
    verdict(&mut html, document);
    for table in &document.tables {
        html.table(table);
    }
    for (at, part) in document.parts.iter().enumerate() {
        section(&mut html, document, at, part);
    }
    html.markup("</main>\n");
    footer(&mut html);
    let drawings: Vec<Drawing> =
        document.parts.iter().map(|part| Drawing::new(&part.record, coarseness)).collect();
    html.data("data", &drawings);
    // The licence of the charts' library travels with it.
    html.markup("<!--\n").markup(CHARTS_LICENCE).markup("-->\n");
    html.markup("<script>").markup(CHARTS_SCRIPT).markup("</script>\n");
    html.markup("<script>").markup(SCRIPT).markup("</script>\n</body>\n</html>\n");
    html.into_text()
}

fn head(html: &mut Html, document: &Document) {
    html.markup("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.markup("<meta http-equiv=\"Content-Security-Policy\" content=\"").markup(POLICY).markup("\">\n");
    html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.markup("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.element("title", &document.title);
    html.markup("<style>").markup(CHARTS_STYLE).markup("\n").markup(STYLE).markup("</style>\n</head>\n");
}

/// First of all what speaks against relying on it, then the verdict in a sentence, then what it rests on.
fn verdict(html: &mut Html, document: &Document) {
    let mut doubted = false;
    for part in &document.parts {
        let doubts = part.doubts();
        if doubts.is_empty() {
            continue;
        }
        doubted = true;
        html.markup("<section class=\"doubt\" role=\"alert\">\n");
        let of_what = if document.parts.len() > 1 { format!("{}: do", part.title) } else { "Do".to_owned() };
        html.element("h2", &format!("{of_what} not rely on these figures"));
        html.markup("<ul>\n");
        for doubt in &doubts {
            html.element("li", doubt);
        }
        html.markup("</ul>\n</section>\n");
    }
    let (class, word) = match document.verdict.passed {
        _ if doubted => ("doubted", "What it would say, could it be relied on"),
        Passed::Yes => ("yes", "Passed"),
        Passed::No => ("no", "Not passed"),
        Passed::NotAsked => ("told", "Verdict"),
    };
    html.markup("<section class=\"verdict ").markup(class).markup("\">\n");
    html.element("p class=\"word\"", word).element("p class=\"sentence\"", &document.verdict.sentence);
    list(html, "evidence", &document.evidence);
    html.markup("</section>\n");
}

fn list(html: &mut Html, class: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    html.markup("<ul class=\"").markup(class).markup("\">\n");
    for line in lines {
        html.element("li", line);
    }
    html.markup("</ul>\n");
}

fn facts(html: &mut Html, record: &Record) {
    let lasted = clock(record.seconds.len() as u64);
    let began = record.began.strftime("%Y-%m-%d %H:%M UTC");
    let facts = [
        ("app", record.app.clone()),
        ("profile", record.profile.clone()),
        ("asked at", record.target.clone()),
        ("shape", record.shape.clone()),
        ("began", began.to_string()),
        ("lasted", lasted),
    ];
    html.markup("<dl class=\"facts\">\n");
    for (name, fact) in facts {
        html.markup("<div>").element("dt", name).element("dd", &fact).markup("</div>\n");
    }
    html.markup("</dl>\n");
}

fn section(html: &mut Html, document: &Document, at: usize, part: &Part) {
    html.markup("<section class=\"part\" data-part=\"").markup(&at.to_string()).markup("\">\n");
    if document.parts.len() > 1 {
        html.element("h2", &part.title);
        if let Some(change) = &part.change {
            html.element("p class=\"change\"", change);
        }
        facts(html, &part.record);
    }
    list(html, "findings", &part.findings);
    html.markup("<dl class=\"figures\">\n");
    for key in numbers::key_figures(&part.record) {
        html.markup("<div>").element("dt", key.name).element("dd", &key.figure);
        html.element("dd class=\"note\"", &key.note).markup("</div>\n");
    }
    html.markup("</dl>\n");
    html.markup(
        "<div class=\"charts\"></div>\n<noscript><p class=\"note\">The charts are drawn by a script in this ",
    );
    html.markup("page, which may not run here. All figures stand in the tables below.</p></noscript>\n");
    events(html, &part.record);
    html.markup("<details>\n<summary>All figures as tables</summary>\n");
    for table in numbers::tables(&part.record) {
        html.table(&table);
    }
    html.markup("</details>\n</section>\n");
}

/// Numbered as the marks in the charts are.
fn events(html: &mut Html, record: &Record) {
    if record.events.is_empty() {
        return;
    }
    html.markup("<section class=\"events\">\n<h3>What happened meanwhile</h3>\n<ol>\n");
    for event in record.events.iter().take(MOST_MARKS) {
        html.markup("<li>").element("time", &clock(event.at_ms / 1_000)).text(&event.text).markup("</li>\n");
    }
    html.markup("</ol>\n");
    let more = record.events.len().saturating_sub(MOST_MARKS);
    if more > 0 {
        html.element("p class=\"note\"", &format!("And {} more, in the JSON.", of(more as u64, "event")));
    }
    html.markup("</section>\n");
}

fn footer(html: &mut Html) {
    html.markup("<footer>\n");
    html.element(
        "p",
        "Latency counts from the moment a request was meant to be sent, so that an app which holds up its visitors \
         cannot hide it. Percentiles are of what was answered in full; what was given up on, broken off or refused is \
         counted as failed and has no latency. Shed is what the app said it does not want: 429, or 503 with Retry-After.",
    );
    html.element(
        "p",
        "In the charts: drag to look closer, double-click for the whole run, click a name to hide its line. By keyboard: \
         arrows move, + and - look closer and back, Escape shows the whole run.",
    );
    html.element(
        "p",
        "Written by Switchback. Charts: uPlot, under the MIT licence, which stands in this page.",
    );
    html.markup("</footer>\n");
}
