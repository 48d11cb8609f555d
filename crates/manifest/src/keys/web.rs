//! Keys of `[web]` and the tables in it.

use super::{Card, Default, Kind, Shape, Table};
use model::ByteSize;

pub(super) static WEB: Table = Table {
    name: "web",
    about: "The web service: your app, run in a number of instances behind the front door.",
    cards: &[
        Card {
            key: "run",
            kind: Kind::Text(Shape::Command),
            default: Default::Required,
            does: "The shell command that starts one instance. It serves HTTP on the port in `PORT`.",
            choose: "What you type to start the app in production, in the foreground. `$PORT` may stand in it.",
            without: "The `web:` line of a `Procfile` beside the manifest is used; without one the manifest is refused.",
            see_also: &["web.build", "web.release", "web.env"],
            example: "run = \"gunicorn --bind 127.0.0.1:$PORT app:app\"",
        },
        Card {
            key: "build",
            kind: Kind::Text(Shape::Command),
            default: Default::Absent("nothing is built"),
            does: "A shell command run in the app's folder before a release is stored.",
            choose: "What turns a fresh checkout into something that runs.",
            without: "Nothing is built; what is in the folder is the release.",
            see_also: &["web.include"],
            example: "build = \"cargo build --release\"",
        },
        Card {
            key: "release",
            kind: Kind::Text(Shape::Command),
            default: Default::Absent("none"),
            does: "A shell command run once per release, before the release takes traffic. It has the environment of an \
                   instance.",
            choose: "Database migrations. While it runs, and for a while after, the old release still serves: add \
                     columns first, remove them a release later.",
            without: "The `release:` line of a `Procfile` beside the manifest is used, if there is one.",
            see_also: &["web.run", "web.deploy"],
            example: "release = \"python manage.py migrate\"",
        },
        Card {
            key: "include",
            kind: Kind::Paths,
            default: Default::Value("[]"),
            does: "Paths that belong to a release although git ignores them.",
            choose: "What the build makes and the app needs: a binary, `node_modules`, a virtual environment.",
            without: "A release is every file of the folder that git does not ignore.",
            see_also: &["web.build"],
            example: "include = [\"target/release/guestbook\"]",
        },
        Card {
            key: "instances",
            kind: Kind::Integer { min: 1, max: 64 },
            default: Default::Preset,
            does: "How many copies of the app run, spread over the zones.",
            choose: "At least one per zone, and enough that the others carry the load while one is replaced.",
            without: "As the stage says: 1 at stage 1, 2 at stage 2, 4 at stage 3.",
            see_also: &["zones", "web.size"],
            example: "instances = 4",
        },
        Card {
            key: "size",
            kind: Kind::ChoiceOrTable(crate::sizes::NAMES, &WEB_SIZE),
            default: Default::Absent("unlimited"),
            does: "How much of the machine each instance may use.",
            choose: "One of the names (nano 0.25 cores and 256MB, micro 0.5 and 512MB, small 1 and 1GB, medium 2 and \
                     2GB, large 4 and 4GB, xlarge 8 and 8GB) or a table. An instance over its memory is killed and \
                     started again; one over its cores waits.",
            without: "An instance may use the whole machine.",
            see_also: &["web.instances", "db.size"],
            example: "size = { cpu = 0.5, memory = \"512MB\" }",
        },
        Card {
            key: "health",
            kind: Kind::Text(Shape::HttpPath),
            default: Default::Absent("probes `/healthz`, `/up`, `/health`, then TCP"),
            does: "The path that tells whether an instance can serve: any 2xx or 3xx answer is healthy.",
            choose: "A cheap page that fails when the app cannot work. Do not let it depend on the database: then one \
                     slow database takes all instances out at once.",
            without: "The first of `/healthz`, `/up` and `/health` that answers 2xx or 3xx is used, otherwise that the \
                      port accepts connections. With `protocol = \"h2c\"` only the latter; a path is asked for in HTTP/2 then.",
            see_also: &["web.start_timeout", "web.protocol"],
            example: "health = \"/healthz\"",
        },
        Card {
            key: "grace",
            kind: Kind::Duration { min_ms: 1_000, max_ms: 3_600_000 },
            default: Default::Value("\"30s\""),
            does: "The time an instance has from SIGTERM to SIGKILL. It gets no new requests by then.",
            choose: "Longer than the slowest request or job.",
            without: "30 seconds.",
            see_also: &["edge.request_timeout"],
            example: "grace = \"1m\"",
        },
        Card {
            key: "start_timeout",
            kind: Kind::Duration { min_ms: 1_000, max_ms: 3_600_000 },
            default: Default::Value("\"60s\""),
            does: "The time a new instance has to become healthy. After it the start has failed, and a deployment goes \
                   back.",
            choose: "Twice what a start takes on a busy machine.",
            without: "60 seconds.",
            see_also: &["web.health", "web.deploy"],
            example: "start_timeout = \"2m\"",
        },
        Card {
            key: "protocol",
            kind: Kind::Choice(&["http1", "h2c"]),
            default: Default::Value("\"http1\""),
            does: "What instances speak: HTTP/1.1, or HTTP/2 without TLS and with prior knowledge.",
            choose: "`\"h2c\"` for gRPC servers; `\"http1\"` for everything else.",
            without: "HTTP/1.1.",
            see_also: &["web.run"],
            example: "protocol = \"h2c\"",
        },
        Card {
            key: "user",
            kind: Kind::Text(Shape::SystemUser),
            default: Default::Absent("the owner of the app's folder"),
            does: "The system user that instances run as when Switchback was started by root.",
            choose: "A user with no rights beyond the app's folder.",
            without: "The owner of the app's folder. Started by another user than root, instances run as that user.",
            see_also: &["web.run"],
            example: "user = \"www-data\"",
        },
        Card {
            key: "env",
            kind: Kind::Environment,
            default: Default::Value("{}"),
            does: "Environment variables of the build, the release command and the instances.",
            choose: "Settings that are no secrets. `PORT`, `DATABASE_URL` and names that begin with `SWITCHBACK_` are \
                     Switchback's own.",
            without: "Instances get `PORT` and, with a `[db]`, `DATABASE_URL`.",
            see_also: &["web.run"],
            example: "env = { LOG_LEVEL = \"info\", WORKERS = 4 }",
        },
        Card {
            key: "keep_releases",
            kind: Kind::Integer { min: 1, max: 100 },
            default: Default::Value("5"),
            does: "How many releases are kept to roll back to, the running one among them.",
            choose: "As many as you would want to go back.",
            without: "5 releases.",
            see_also: &["web.deploy"],
            example: "keep_releases = 10",
        },
        Card {
            key: "deploy",
            kind: Kind::Table(&DEPLOY),
            default: Default::Absent("every key of the table has a default"),
            does: "When a deployment goes back by itself: the first new instance serves beside the old ones for a while, \
                   and their answers are compared.",
            choose: "The defaults; a longer `window` where errors show late.",
            without: "Compared for 5 seconds, at most 5 percentage points worse, from 20 answers on.",
            see_also: &["web.start_timeout"],
            example: "deploy = { window = \"30s\", max_worse_percent = 2 }",
        },
    ],
};

static WEB_SIZE: Table =
    Table { name: "web.size", about: "A size written out, in place of one of the names.", cards: SIZE };

/// Shared by everything that has a size.
pub(super) const SIZE: &[Card] = &[
    Card {
        key: "cpu",
        kind: Kind::Cores,
        default: Default::Absent("unlimited"),
        does: "How many cores it may keep busy. A fraction is a share of one core.",
        choose: "1 for a single-threaded app.",
        without: "As many as there are.",
        see_also: &["web.size", "db.size"],
        example: "cpu = 0.5",
    },
    Card {
        key: "memory",
        kind: Kind::Bytes { min: 16 * ByteSize::MB, max: 16 * ByteSize::TB },
        default: Default::Absent("unlimited"),
        does: "How much memory it may use, its children included.",
        choose: "Half as much again as it uses under load.",
        without: "As much as there is.",
        see_also: &["web.size", "db.size"],
        example: "memory = \"512MB\"",
    },
];

static DEPLOY: Table = Table {
    name: "web.deploy",
    about: "When a deployment goes back by itself.",
    cards: &[
        Card {
            key: "window",
            kind: Kind::Duration { min_ms: 0, max_ms: 600_000 },
            default: Default::Value("\"5s\""),
            does: "How long the first new instance serves beside the old ones before the next is replaced. Where nobody asks \
                   anything there is nothing to compare, but an end of its process is seen.",
            choose: "Long enough for a few hundred requests.",
            without: "5 seconds.",
            see_also: &["web.deploy.min_answers"],
            example: "window = \"30s\"",
        },
        Card {
            key: "max_worse_percent",
            kind: Kind::Integer { min: 0, max: 100 },
            default: Default::Value("5"),
            does: "How many percentage points more 5xx answers and failures than the old release has are borne before \
                   the deployment goes back.",
            choose: "Lower where errors are rare, higher where they come and go.",
            without: "5 percentage points.",
            see_also: &["web.deploy.min_answers"],
            example: "max_worse_percent = 2",
        },
        Card {
            key: "min_answers",
            kind: Kind::Integer { min: 1, max: 1_000_000 },
            default: Default::Value("20"),
            does: "With fewer answers than this in the window, the new release is not judged by its answers.",
            choose: "Enough that a single error is no verdict.",
            without: "20 answers.",
            see_also: &["web.deploy.window"],
            example: "min_answers = 100",
        },
    ],
};
