//! Keys of `[db]`.

use super::web::SIZE;
use super::{Card, Default, Kind, Shape, Table};

pub(super) static DB: Table = Table {
    name: "db",
    about: "The database. The app reaches it by `DATABASE_URL`, an address that never changes for the life of the app.",
    cards: &[
        Card {
            key: "engine",
            kind: Kind::Choice(&["postgres"]),
            default: Default::Required,
            does: "The database engine.",
            choose: "`\"postgres\"` is the only one.",
            without: "The manifest is refused when it has a `[db]` table.",
            see_also: &["db.size"],
            example: "engine = \"postgres\"",
        },
        Card {
            key: "size",
            kind: Kind::ChoiceOrTable(crate::sizes::NAMES, &DB_SIZE),
            default: Default::Absent("unlimited"),
            does: "How much of the machine the database may use. PostgreSQL's memory settings follow it.",
            choose: "As for `web.size`. Give a database memory first: a quarter of it becomes shared buffers.",
            without: "The database may use the whole machine.",
            see_also: &["web.size"],
            example: "size = \"small\"",
        },
        Card {
            key: "standbys",
            kind: Kind::Integer { min: 0, max: 4 },
            default: Default::Preset,
            does: "How many nodes follow the primary, confirm each commit, and take over when the primary is lost. They \
                   are spread over the zones.",
            choose: "1 is enough for one machine. With 2 a commit needs only the faster one, and one of them may be away.",
            without: "As the stage says: 0 at stage 1, 1 at stages 2 and 3.",
            see_also: &["zones", "db.without_standby"],
            example: "standbys = 1",
        },
        Card {
            key: "without_standby",
            kind: Kind::Choice(&["block", "degrade"]),
            default: Default::Value("\"block\""),
            does: "What a commit does while there should be a standby and none confirms it. `block`: it waits, so that \
                   whatever was acknowledged is on two nodes. `degrade`: after some seconds the primary acknowledges alone, \
                   until a standby is back.",
            choose: "`block` where losing an acknowledged commit is worse than waiting, `degrade` where waiting is worse. \
                     After a failover the new primary acknowledges alone with either, until the old one has come back.",
            without: "`block`.",
            see_also: &["db.standbys"],
            example: "without_standby = \"degrade\"",
        },
        Card {
            key: "read_replicas",
            kind: Kind::Integer { min: 0, max: 4 },
            default: Default::Preset,
            does: "How many nodes follow the primary to serve reads. They are spread over the zones. `pgproxy` sends them the \
                   statements that only read; the app changes nothing. They confirm no commits, and take over only where \
                   none of the standbys has more.",
            choose: "One in each zone. More where reads keep those busy; each is one more copy of the data.",
            without: "As the stage says: 0 at stages 1 and 2, 2 at stage 3.",
            see_also: &["zones", "db.standbys"],
            example: "read_replicas = 2",
        },
        Card {
            key: "pool",
            kind: Kind::Table(&POOL),
            default: Default::Absent("every key of the table has a default"),
            does: "How `pgproxy` lets the app's clients share the connections of the database, how many of them there may be, and \
                   how long they may be kept waiting. A change of it is taken while clients are connected.",
            choose: "The defaults.",
            without: "1000 clients share connections by transaction, and wait 30 seconds for a primary.",
            see_also: &["db.size", "db.read_replicas"],
            example: "pool = { mode = \"session\", clients = 200 }",
        },
        Card {
            key: "backups",
            kind: Kind::ChoiceOrTable(&["on", "off"], &BACKUPS),
            default: Default::Value("\"on\""),
            does: "Backups: the log of the database, stored as it is written, and a copy of the whole from time to time. \
                   From both `switchback restore` brings back any moment since the oldest copy. Each copy is proven by \
                   restoring it beside the app.",
            choose: "Leave it on, and name another disk in `to`: a backup beside its database is lost with it. `\"off\"` \
                     where something else makes backups.",
            without: "On, in the state folder, with a copy each day.",
            see_also: &["db.backups.to", "db.backups.every", "db.backups.keep"],
            example: "backups = { to = \"/srv/backups\", every = \"12h\", keep = 14 }",
        },
        Card {
            key: "name",
            kind: Kind::Text(Shape::DatabaseName),
            default: Default::Absent("the app's name with `_` for `-`"),
            does: "The database that `DATABASE_URL` names, and the role that owns it.",
            choose: "Leave it out unless the app's code names its database. It cannot be changed later without losing \
                     sight of the data under the old name.",
            without: "The app's name with `_` for `-`.",
            see_also: &["app"],
            example: "name = \"guestbook\"",
        },
    ],
};

static DB_SIZE: Table =
    Table { name: "db.size", about: "A size written out, in place of one of the names.", cards: SIZE };

static POOL: Table = Table {
    name: "db.pool",
    about: "How clients share the connections of the database.",
    cards: &[
        Card {
            key: "mode",
            kind: Kind::Choice(&["transaction", "session"]),
            default: Default::Value("\"transaction\""),
            does: "When a client lets go of its connection to PostgreSQL. `transaction`: at the end of each transaction, unless \
                   its session has something that only this connection knows. `session`: when the client leaves.",
            choose: "`transaction`. `session` where the app relies on what its connection keeps in ways that no statement shows; \
                     then it needs as many connections as it has clients, and reads are served by the primary alone.",
            without: "`transaction`.",
            see_also: &["db.pool.clients"],
            example: "mode = \"session\"",
        },
        Card {
            key: "clients",
            kind: Kind::Integer { min: 1, max: 100_000 },
            default: Default::Value("1000"),
            does: "How many clients may be connected at once, those that wait included. One more is refused with SQLSTATE 53300. \
                   How many of them PostgreSQL works for at the same time follows `db.size`.",
            choose: "Above what the pools of all instances hold together, and of the next release's beside them.",
            without: "1000.",
            see_also: &["web.instances", "db.size"],
            example: "clients = 5000",
        },
        Card {
            key: "hold",
            kind: Kind::Duration { min_ms: 1_000, max_ms: 3_600_000 },
            default: Default::Value("\"30s\""),
            does: "How long what has not started waits while the database has no primary, as in a failover. Then it fails with \
                   SQLSTATE 57P03.",
            choose: "Longer than a failover takes, which is some seconds, and shorter than whoever asks would wait.",
            without: "30 seconds.",
            see_also: &["edge.request_timeout"],
            example: "hold = \"10s\"",
        },
        Card {
            key: "max_replica_lag",
            kind: Kind::Duration { min_ms: 1_000, max_ms: 3_600_000 },
            default: Default::Value("\"10s\""),
            does: "A read replica that lacks what was written so long ago gets no reads until it has it. Whoever has written is \
                   shown what was written in any case.",
            choose: "As old as what a visitor is shown may be who has written nothing.",
            without: "10 seconds.",
            see_also: &["db.read_replicas"],
            example: "max_replica_lag = \"2s\"",
        },
    ],
};

static BACKUPS: Table = Table {
    name: "db.backups",
    about: "Where backups go, how often a copy is made, and how many are kept.",
    cards: &[
        Card {
            key: "to",
            kind: Kind::Text(Shape::FilePath),
            default: Default::Absent("`backups` in the state folder"),
            does: "The folder that backups are kept in. Each database gets a folder of its own there, so that several apps \
                   may share it. With root, it is PostgreSQL's user who writes there.",
            choose: "A folder on another disk than the state folder's, or on another machine's that is mounted here.",
            without: "They are kept in the state folder: safe from mistakes, not from the loss of the disk.",
            see_also: &["db.backups"],
            example: "to = \"/srv/backups\"",
        },
        Card {
            key: "every",
            kind: Kind::Duration { min_ms: 60_000, max_ms: 31 * 24 * 3_600_000 },
            default: Default::Value("\"24h\""),
            does: "From one copy to the next.",
            choose: "More often where much is written: a restore begins with a copy and replays the log from there on.",
            without: "A copy each day.",
            see_also: &["db.backups.keep"],
            example: "every = \"6h\"",
        },
        Card {
            key: "keep",
            kind: Kind::Integer { min: 1, max: 1_000 },
            default: Default::Value("7"),
            does: "How many copies are kept. The log is kept from the oldest of them on. The newest copy that was proven is \
                   kept beyond that number.",
            choose: "With `every`, how far back you can go. A copy takes about a third of the database's size.",
            without: "7: a week, with a copy each day.",
            see_also: &["db.backups.every"],
            example: "keep = 14",
        },
    ],
};
