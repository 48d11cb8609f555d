//! The words that sample names, titles and comments are put together from.
//!
//! Hosts end in `.example`, which is reserved: no sample story leads anywhere real.

use super::sample::Dice;

/// What a sample story says and where it leads.
pub struct StoryWords {
    pub title: String,
    pub url: Option<String>,
    pub domain: Option<String>,
    pub body: String,
}

/// Up to 625 different user names.
pub fn user_names() -> impl Iterator<Item = String> {
    // The second word moves on with every name, so that neighbours do not look alike.
    (0..MOODS.len() * ANIMALS.len()).map(|number| {
        let round = number / ANIMALS.len();
        let mood = MOODS[(number + round) % MOODS.len()];
        format!("{mood}{}", ANIMALS[number % ANIMALS.len()])
    })
}

/// A title with a link, or now and then a question with a text; `id` keeps the addresses apart.
pub fn story(dice: &mut Dice, id: i64) -> StoryWords {
    let thing = *dice.pick(THINGS);
    let tool = *dice.pick(TOOLS);
    let place = *dice.pick(PLACES);
    if dice.below(8) == 0 {
        let pattern = *dice.pick(QUESTIONS);
        let title = capital(&filled(pattern, thing, tool, place));
        let body = format!("{}\n\n{}", dice.pick(BACKGROUNDS), dice.pick(REQUESTS));
        return StoryWords { title, url: None, domain: None, body: filled(&body, thing, tool, place) };
    }
    let pattern = *dice.pick(TITLES);
    let title = capital(&filled(pattern, thing, tool, place));
    let domain = format!("{}.example", dice.pick(HOSTS));
    let slug: String =
        title.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug: Vec<&str> = slug.split('-').filter(|word| !word.is_empty()).take(6).collect();
    StoryWords {
        title,
        url: Some(format!("https://{domain}/{}-{id}", slug.join("-"))),
        domain: Some(domain),
        body: String::new(),
    }
}

/// Two or three sentences.
pub fn comment(dice: &mut Dice) -> String {
    let thing = *dice.pick(THINGS);
    let tool = *dice.pick(TOOLS);
    let place = *dice.pick(PLACES);
    let (opening, reason) = (*dice.pick(OPENINGS), *dice.pick(REASONS));
    // After a colon the sentence goes on, after a full stop another begins.
    let reason = filled(reason, thing, tool, place);
    let reason = if opening.ends_with('.') { capital(&reason) } else { reason };
    let mut text = format!("{opening} {reason}");
    match dice.below(3) {
        0 => (),
        1 => text = format!("{text} {}", dice.pick(ENDINGS)),
        _ => text = format!("{text}\n\n{}", dice.pick(ENDINGS)),
    }
    capital(&filled(&text, thing, tool, place))
}

/// Puts words into a pattern.
fn filled(pattern: &str, thing: &str, tool: &str, place: &str) -> String {
    pattern.replace("{thing}", thing).replace("{tool}", tool).replace("{place}", place)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

const MOODS: &[&str] = &[
    "amber", "brisk", "calm", "clever", "copper", "dapper", "early", "fuzzy", "gentle", "hazel", "idle",
    "jolly", "keen", "lucky", "mellow", "nimble", "olive", "plucky", "quiet", "rusty", "silver", "tidy",
    "umber", "vivid", "witty",
];

const ANIMALS: &[&str] = &[
    "otter", "heron", "badger", "lynx", "marmot", "magpie", "newt", "wombat", "gecko", "finch", "beaver",
    "ibex", "tapir", "walrus", "puffin", "stoat", "raven", "moth", "carp", "bison", "weasel", "quail",
    "hare", "toad", "wren",
];

const THINGS: &[&str] = &[
    "a mail server",
    "the event queue",
    "a tiny compiler",
    "our search index",
    "a weather station",
    "the build cache",
    "a chess clock",
    "a public library catalogue",
    "the payment service",
    "a bicycle map",
    "a hash table",
    "the test suite",
    "a paper notebook",
    "a radio telescope",
    "a spreadsheet engine",
    "the login page",
    "a sourdough timer",
    "a font editor",
    "a music tracker",
    "the backup job",
    "a train timetable",
    "a text adventure",
    "the image pipeline",
    "a garden robot",
    "a flight simulator",
    "the on-call rota",
    "a key-value store",
    "a typewriter",
    "a bee counter",
    "a data warehouse",
    "the deployment script",
    "a pocket synthesizer",
    "a family photo archive",
    "a ray tracer",
    "the feature flags",
    "a tide predictor",
];

const TOOLS: &[&str] = &[
    "plain SQL",
    "one shell script",
    "Rust",
    "a single SQLite file",
    "PostgreSQL",
    "Python",
    "a state machine",
    "two old laptops",
    "WebAssembly",
    "Lisp",
    "a message bus",
    "property tests",
    "no framework at all",
    "B-trees",
    "a solar panel",
    "Erlang",
    "a bloom filter",
    "an e-ink screen",
    "static files",
    "Zig",
    "feature detection",
    "pen and paper",
    "a cron job",
    "Go",
    "a ring buffer",
    "an oscilloscope",
    "HTML and patience",
    "a Kalman filter",
];

const PLACES: &[&str] = &[
    "a small office",
    "the Alps",
    "a school in Porto",
    "my grandmother's attic",
    "a research ship",
    "production",
    "a hospital",
    "a village of 300 people",
    "the night shift",
    "a tram depot",
    "orbit",
    "a bakery",
    "an airport tower",
    "a two-person company",
    "the archive of a newspaper",
    "a lighthouse",
    "the back of a van",
    "a public radio station",
];

const HOSTS: &[&str] = &[
    "smallweb",
    "nightly.build",
    "lena.notes",
    "the-workshop",
    "bytes-and-bread",
    "slowdata",
    "harbour.press",
    "kestrel.systems",
    "oak-and-iron",
    "quietcode",
    "blog.tramdepot",
    "fieldnotes",
    "papertrail.science",
    "two-laptops",
    "dispatch.news",
    "engineering.lumen",
    "static.garden",
    "cold-storage",
    "tidewater.review",
    "openbench",
    "marginalia.journal",
    "late-train",
    "rack42",
    "parsing.school",
    "signal-hill",
    "commons.archive",
    "pico.parts",
    "halfbyte",
    "northwind.observatory",
    "letters.atelier",
    "runbook.club",
    "greenhouse.lab",
    "longform.weekly",
    "alpine.radio",
    "queue.theory",
    "tinkerers",
    "dev.bakery",
    "orbit.watch",
    "www2.archive",
    "sundial",
];

const TITLES: &[&str] = &[
    "Building {thing} with {tool}",
    "We replaced {thing} with {tool}, and slept better",
    "{tool} is all you need for {thing}",
    "What {place} taught me about {thing}",
    "How {thing} works in {place}",
    "Why we moved {thing} off {tool}",
    "Show: {thing}, written in a weekend with {tool}",
    "Ten years of running {thing} in {place}",
    "The hidden cost of {thing} in {place}",
    "{thing} in 200 lines, and what {tool} had to do with it",
    "Debugging {thing} at three in the morning in {place}",
    "Notes on {tool}, from {place}",
    "A field guide to {thing} in {place}",
    "Stop rewriting {thing} with {tool}",
    "The unreasonable charm of {tool} in {place}",
    "Measuring {thing} before and after {tool}",
    "{thing}: a love letter from {place}",
    "Lessons from losing {thing} for four hours",
    "I taught {tool} to a class in {place}",
    "From {tool} to {thing} and back again",
];

const QUESTIONS: &[&str] = &[
    "Ask: how do you keep {thing} simple?",
    "Ask: is {tool} still a good choice for {thing}?",
    "Ask: what runs in {place} where you live?",
    "Ask: who maintains {thing} after you leave?",
    "Ask: what would you build with {tool} in a month?",
    "Ask: favourite books about {thing}?",
];

const BACKGROUNDS: &[&str] = &[
    "We are three people and have inherited {thing}. It works, but nobody dares to touch it.",
    "I have used {tool} for years at work, and would like to try it on something of my own.",
    "Last week {thing} stopped twice. Both times the cause was something we had never measured.",
    "A friend who works in {place} asked me this, and I had no good answer.",
];

const REQUESTS: &[&str] = &[
    "What would you look at first?",
    "Stories of what went wrong are as welcome as advice.",
    "I am mostly interested in what you would not do again.",
    "Please say how large your team is: it seems to decide everything.",
];

const OPENINGS: &[&str] = &[
    "This matches what we saw with {thing}.",
    "I am not convinced.",
    "Lovely write-up.",
    "Small correction:",
    "We tried exactly this in {place}.",
    "The part about {tool} deserves more attention.",
    "I wish I had read this two years ago.",
    "Honest question:",
    "The numbers look right to me.",
    "I had the opposite experience.",
    "For anyone who wants to try it:",
    "Having kept {thing} alive for a while, I agree.",
];

const REASONS: &[&str] = &[
    "most of the time goes into waiting, not into {tool}.",
    "it is easy until {thing} has to be restored from a backup.",
    "nobody measures it before the first outage.",
    "{tool} was the boring choice, and the boring choice won.",
    "in {place} the network is the slow part, so none of this matters much.",
    "the second version took a tenth of the code.",
    "the hard part is explaining it to whoever comes next.",
    "you can get most of the benefit by deleting half of {thing}.",
    "what happens when two people change {thing} at once?",
    "the default settings are fine for the first million rows.",
];

const ENDINGS: &[&str] = &[
    "Thank you for writing it down.",
    "I would still start with {tool}.",
    "Happy to share our notes if anyone is interested.",
    "Your mileage may vary, of course.",
    "The old version ran for eleven years without a restart.",
    "That said, I would do it again.",
    "There is a good talk about this by someone from {place}.",
    "We ended up keeping both.",
];
