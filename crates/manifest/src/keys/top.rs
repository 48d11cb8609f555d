//! Keys before the first header.

use super::{Card, Default, Kind, Shape, Table, db, edge, rehearsal, web};

pub static TOP: Table = Table {
    name: "",
    about: "Keys about the app as a whole. They stand before the first `[table]`.",
    cards: &[
        Card {
            key: "app",
            kind: Kind::Text(Shape::AppName),
            default: Default::Required,
            does: "Names the app. The name stands in `status`, in logs and metrics, and names the database.",
            choose: "A short word of lower-case letters, digits and `-` that will still fit in a year.",
            without: "The manifest is refused.",
            see_also: &["db.name"],
            example: "app = \"guestbook\"",
        },
        Card {
            key: "stage",
            kind: Kind::Stage,
            default: Default::Value("1"),
            does: "Chooses the architecture: 1 is one server, 2 is two zones, 3 is two zones with read replicas of \
                   the database. A stage only fills in what the manifest leaves out; a key that is written down wins over \
                   it.",
            choose: "Begin with 1. Take 2 when losing an instance, the database's primary or a whole zone must not stop the \
                     app; zones are of one machine, whose loss stops it at every stage. Take 3 when the database's primary is \
                     what is busy, mostly with reads. `switchback stage N` changes this line, and the running app with it, \
                     without a failed request.",
            without: "Stage 1.",
            see_also: &["zones", "web.instances"],
            example: "stage = 2",
        },
        Card {
            key: "domain",
            kind: Kind::Text(Shape::HostName),
            default: Default::Absent("none"),
            does: "The host name people reach the app by. Certificates of the local CA carry it beside `localhost`.",
            choose: "The name in the address bar, without `https://`, port or path.",
            without: "Only `localhost` stands in local certificates.",
            see_also: &["edge.tls"],
            example: "domain = \"guestbook.example.com\"",
        },
        Card {
            key: "zones",
            kind: Kind::Integer { min: 1, max: 3 },
            default: Default::Preset,
            does: "The number of zones that instances are spread over. On one machine a zone is a failure domain: \
                   what stands in it stops together in a drill.",
            choose: "Leave it to the stage. With fewer instances than zones, some zones stay empty.",
            without: "As the stage says: 1 zone at stage 1, 2 zones at stages 2 and 3.",
            see_also: &["stage", "web.instances"],
            example: "zones = 2",
        },
        Card {
            key: "web",
            kind: Kind::Table(&web::WEB),
            default: Default::Absent("a Procfile with a `web:` line can take its place"),
            does: "The table of the web service: how it is built, run, sized and watched.",
            choose: "Write `run`; add the rest when it is needed.",
            without: "The `web:` line of a `Procfile` beside the manifest is run.",
            see_also: &["web.run"],
            example: "[web]\nrun = \"gunicorn app:app\"",
        },
        Card {
            key: "db",
            kind: Kind::Table(&db::DB),
            default: Default::Absent("no database"),
            does: "The table of the database. Its presence gives the app a database and a `DATABASE_URL`.",
            choose: "Write it when the app needs a database; `engine` is enough.",
            without: "No database is run and `DATABASE_URL` is not set.",
            see_also: &["db.engine"],
            example: "[db]\nengine = \"postgres\"",
        },
        Card {
            key: "edge",
            kind: Kind::Table(&edge::EDGE),
            default: Default::Absent("every key of the table has a default"),
            does: "The table of the front door: where clients connect, TLS, limits and logs.",
            choose: "Leave it out until an address, TLS or a limit has to be different.",
            without: "The front door listens on 127.0.0.1:8080 without TLS.",
            see_also: &["edge.listen"],
            example: "[edge]\nlisten = \":80\"",
        },
        Card {
            key: "rehearsal",
            kind: Kind::Table(&rehearsal::REHEARSAL),
            default: Default::Absent("every key of the table has a default"),
            does: "The table of rehearsals: what is required of the app under load, and visits of your own.",
            choose: "Leave it out until a rehearsal has to log in, to write, or to keep a promise of yours.",
            without: "Rehearsals read what they find, and require what is usual.",
            see_also: &["rehearsal.slo"],
            example: "[rehearsal]\nslo = \"p99 < 500ms\"",
        },
    ],
};
