//! Keys of `[rehearsal]`.

use super::{Card, Default, Kind, Shape, Table};

pub(super) static REHEARSAL: Table = Table {
    name: "rehearsal",
    about: "What `switchback rehearse` requires of the app under load, and what visitors do beside what is found by itself. \
            Nothing that runs depends on it.",
    cards: &[
        Card {
            key: "slo",
            kind: Kind::Thresholds,
            default: Default::Value("[\"p99 < 250ms\", \"errors < 0.1%\"]"),
            does: "What is required of the app under load: of latencies (`p50`, `p99`, `p99.9`), of the share of `errors`, of \
                   the share that was `shed`, of the `rate` of good answers, and of the `capacity` that a search finds. In \
                   braces, of one class of requests alone: `page`, `asset`, `search`, `write`, `bot` or `missing`. A request \
                   without an answer is slower than any latency, and one that was turned away or failed has none; a list that \
                   does not speak of `errors` allows 0.1 %, and one that does not speak of `shed` 1 %, but for `overload`.",
            choose: "What visitors would not notice. The capacity of the app is the most that it serves within it.",
            without: "99 of 100 requests within 250 ms, and at most one of a thousand fails.",
            see_also: &["rehearsal.visit"],
            example: "slo = [\"p99 < 250ms\", \"p99{search} < 1s\", \"errors < 0.1%\"]",
        },
        Card {
            key: "visit",
            kind: Kind::Named(&VISIT),
            default: Default::Absent("visitors only read what is found by itself"),
            does: "A table for each kind of visit that is found neither in the access log nor by following links: what is \
                   behind a login, and whatever writes.",
            choose: "One for each thing that people come for. Only a step with `post` makes a rehearsal write, and it leaves its \
                     data behind.",
            without: "Pages, assets and searches are taken from the access log, or found from `/`. Nothing is written.",
            see_also: &["rehearsal.visit.NAME.steps"],
            example: "visit.signer = { weight = 2, steps = [{ get = \"/\" }, { post = \"/sign\", form = { name = \"{random}\" } }] }",
        },
    ],
};

static VISIT: Table = Table {
    name: "rehearsal.visit.NAME",
    about: "One kind of visit. `NAME` is yours to choose.",
    cards: &[
        Card {
            key: "weight",
            kind: Kind::Integer { min: 1, max: 100 },
            default: Default::Required,
            does: "Of a hundred visits, so many are such. What all of them leave is for the visits that are found by themselves.",
            choose: "2 for those who sign up, comment or buy.",
            without: "The manifest is refused when it has the visit.",
            see_also: &["rehearsal.visit"],
            example: "weight = 2",
        },
        Card {
            key: "steps",
            kind: Kind::Steps(&STEP),
            default: Default::Required,
            does: "What such a visitor does, one after the other. The visit ends with the first step that fails. A single step \
                   needs no list. Cookies are kept from step to step.",
            choose: "As few as show what the app has to do.",
            without: "The manifest is refused when it has the visit.",
            see_also: &["rehearsal.visit.NAME.weight"],
            example: "steps = [{ get = \"/sign\" }, { post = \"/sign\" }]",
        },
    ],
};

static STEP: Table = Table {
    name: "rehearsal.visit.NAME.steps",
    about: "One step of a visit. It has either `get` or `post`.",
    cards: &[
        Card {
            key: "get",
            kind: Kind::Text(Shape::HttpPath),
            default: Default::Absent("none, with `post`"),
            does: "A path that is asked for.",
            choose: "A page of the app, with its query.",
            without: "The step needs `post`.",
            see_also: &["rehearsal.visit.NAME.steps.post"],
            example: "get = \"/books?page=2\"",
        },
        Card {
            key: "post",
            kind: Kind::Text(Shape::HttpPath),
            default: Default::Absent("none, with `get`"),
            does: "A path that a form is sent to. This is what makes a rehearsal write.",
            choose: "The `action` of a form of the step before. Its hidden fields, such as a token against forgery, are sent along.",
            without: "The step needs `get`.",
            see_also: &["rehearsal.visit.NAME.steps.form", "rehearsal.visit.NAME.steps.get"],
            example: "post = \"/sign\"",
        },
        Card {
            key: "form",
            kind: Kind::Fields,
            default: Default::Absent("no fields"),
            does: "The fields that are sent with `post`. `{random}` in a value is a word of its own for each visit.",
            choose: "What a person would fill in. With `{random}` what may be there only once.",
            without: "Only the hidden fields of the form before are sent.",
            see_also: &["rehearsal.visit.NAME.steps.post"],
            example: "form = { name = \"{random}\", age = 30 }\npost = \"/sign\"",
        },
        Card {
            key: "think",
            kind: Kind::Duration { min_ms: 0, max_ms: 600_000 },
            default: Default::Absent("none"),
            does: "How long visitors read or write before the step. Half of them take less, some a good deal more.",
            choose: "What you take yourself.",
            without: "The step is taken at once.",
            see_also: &["rehearsal.visit.NAME.steps"],
            example: "think = \"5s\"\nget = \"/books\"",
        },
        Card {
            key: "expect",
            kind: Kind::Integer { min: 200, max: 599 },
            default: Default::Absent("200 to 399"),
            does: "The status that is success.",
            choose: "Needed only where the app answers success with another, or failure with one of these, or sends visitors to \
                     another site, as to pay there.",
            without: "Any from 200 to 399, but for a redirect to another site.",
            see_also: &["rehearsal.visit.NAME.steps"],
            example: "expect = 303\npost = \"/sign\"",
        },
    ],
};
