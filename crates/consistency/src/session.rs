//! What an operation is in SQL, and what its end means.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use freshness::Freshness;
use tokio_postgres::Config;

use crate::bank::{Banking, Transfer};
use crate::client::{Connection, Protocol, Refused};
use crate::history::Outcome;
use crate::lists::{Isolation, Node, Step, Transaction, Value};

pub const TABLES: &[&str] = &[
    "CREATE TABLE lists (key int PRIMARY KEY, elements text NOT NULL)",
    "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)",
    // Without a key, so that a transfer made twice is there twice.
    "CREATE TABLE ledger (id int NOT NULL, \"from\" int NOT NULL, \"to\" int NOT NULL, amount int NOT NULL)",
    // PostgreSQL's own would be asked of the primary.
    "CREATE FUNCTION replica() RETURNS boolean STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()'",
];

/// Whether a replica has answered, as `t` or `f`, and the list.
const READ_ANYWHERE: &str = "SELECT concat(replica(), ' ', (SELECT elements FROM lists WHERE key = $1))";
const READ: &str = "SELECT elements FROM lists WHERE key = $1";
const APPEND: &str = "INSERT INTO lists (key, elements) VALUES ($1::int, ($2::int)::text) \
     ON CONFLICT (key) DO UPDATE SET elements = lists.elements || ',' || excluded.elements";
const APPEND_AND_READ: &str = "INSERT INTO lists (key, elements) VALUES ($1::int, ($2::int)::text) \
     ON CONFLICT (key) DO UPDATE SET elements = lists.elements || ',' || excluded.elements RETURNING elements";

const LOOK: &str = "SELECT string_agg(balance::text, ',' ORDER BY id) FROM accounts";
const TRANSFER: &str = "WITH written AS (INSERT INTO ledger VALUES ($1::int, $2::int, $3::int, $4::int)) \
     UPDATE accounts SET balance = balance + CASE id WHEN $2::int THEN - $4::int ELSE $4::int END \
     WHERE id IN ($2::int, $3::int)";
const WRITE_DOWN: &str = "INSERT INTO ledger VALUES ($1::int, $2::int, $3::int, $4::int)";
const MOVE: &str = "UPDATE accounts SET balance = balance + $2::int WHERE id = $1::int";
const LOOK_AT_HALF: &str =
    "SELECT string_agg(balance::text, ',' ORDER BY id) FROM accounts WHERE id % 2 = $1::int";

/// How a session ran something.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Outcome,
    pub error: Option<String>,
    /// Whether the connection can be used again.
    pub connected: bool,
}

impl Ended {
    fn well() -> Ended {
        Ended { outcome: Outcome::Ok, error: None, connected: true }
    }

    /// Of what was not to commit by itself, or only reads.
    fn refused(refused: Refused) -> Ended {
        Ended { outcome: Outcome::Fail, error: Some(refused.error), connected: refused.connected }
    }

    /// Of what was to commit.
    fn perhaps(refused: Refused) -> Ended {
        let outcome = if refused.rolled_back { Outcome::Fail } else { Outcome::Info };
        Ended { outcome, error: Some(refused.error), connected: refused.connected }
    }
}

/// A connection, and what its client has to bring where reads may come from replicas.
pub struct Session {
    connection: Connection,
    marks: Option<Arc<Freshness>>,
}

impl Session {
    /// # Errors
    /// With what the server or the socket said.
    pub async fn open(config: &Config, marks: Option<Arc<Freshness>>) -> Result<Session, String> {
        Ok(Session { connection: Connection::open(config).await?, marks })
    }

    /// As the front door does for a client that comes back: its reads must see what was acknowledged, over whatever
    /// connection.
    fn bring_mark(&self) {
        if let Some(marks) = &self.marks {
            marks.require(marks.committed());
        }
    }

    pub async fn transact(&mut self, protocol: Protocol, transaction: &mut Transaction) -> Ended {
        self.bring_mark();
        let writes = transaction.writes();
        let Some(isolation) = transaction.block else {
            let run = match transaction.steps.as_mut_slice() {
                [Step::Append(key, value), Step::Read(_, list)] => {
                    let returned = self.connection.run(protocol, APPEND_AND_READ, &pair(*key, *value)).await;
                    returned.map(|text| *list = Some(numbers(text)))
                }
                [Step::Append(key, value)] => {
                    self.connection.run(protocol, APPEND, &pair(*key, *value)).await.map(drop)
                }
                [Step::Read(key, list)] => {
                    let read = self.connection.run(protocol, READ_ANYWHERE, &[key.cast_signed()]).await;
                    read.map(|text| {
                        let text = text.unwrap_or_default();
                        let (is_replica, elements) = text.split_once(' ').expect("it says who has answered");
                        transaction.by = if is_replica == "t" { Node::Replica } else { Node::Primary };
                        *list = Some(numbers(Some(elements.to_owned())));
                    })
                }
                other => unreachable!("no single statement does {other:?}"),
            };
            return match run {
                Ok(()) => Ended::well(),
                Err(refused) if writes => Ended::perhaps(refused),
                Err(refused) => Ended::refused(refused),
            };
        };
        let begin = match isolation {
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        };
        if let Err(refused) = self.connection.run(protocol, begin, &[]).await {
            return self.give_up(protocol, refused).await;
        }
        for step in &mut transaction.steps {
            let run = match step {
                Step::Append(key, value) => {
                    self.connection.run(protocol, APPEND, &pair(*key, *value)).await.map(drop)
                }
                Step::Read(key, list) => {
                    let read = self.connection.run(protocol, READ, &[key.cast_signed()]).await;
                    read.map(|text| *list = Some(numbers(text)))
                }
            };
            if let Err(refused) = run {
                return self.give_up(protocol, refused).await;
            }
        }
        self.commit(protocol, writes).await
    }

    pub async fn bank(&mut self, protocol: Protocol, in_block: bool, banking: &mut Banking) -> Ended {
        self.bring_mark();
        match banking {
            Banking::Look(balances) if in_block => self.look_twice(protocol, balances).await,
            Banking::Look(balances) => match self.connection.run(protocol, LOOK, &[]).await {
                Ok(text) => {
                    *balances = Some(numbers(text));
                    Ended::well()
                }
                Err(refused) => Ended::refused(refused),
            },
            Banking::Transfer(transfer) if in_block => self.transfer(protocol, transfer).await,
            Banking::Transfer(Transfer { id, from, to, amount }) => {
                let given = [*id, *from, *to, *amount].map(u32::cast_signed);
                match self.connection.run(protocol, TRANSFER, &given).await {
                    Ok(_) => Ended::well(),
                    Err(refused) => Ended::perhaps(refused),
                }
            }
        }
    }

    /// Half of the accounts, then the others, in one state of the database.
    async fn look_twice(&mut self, protocol: Protocol, balances: &mut Option<Vec<i64>>) -> Ended {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        if let Err(refused) = self.connection.run(protocol, begin, &[]).await {
            return self.give_up(protocol, refused).await;
        }
        let mut halves = Vec::new();
        for half in [0, 1] {
            match self.connection.run(protocol, LOOK_AT_HALF, &[half]).await {
                Ok(text) => halves.push(numbers(text)),
                Err(refused) => return self.give_up(protocol, refused).await,
            }
        }
        let ended = self.commit(protocol, false).await;
        let accounts = halves[0].iter().zip(&halves[1]);
        *balances = Some(accounts.flat_map(|(even, odd)| [*even, *odd]).collect());
        ended
    }

    async fn transfer(&mut self, protocol: Protocol, transfer: &Transfer) -> Ended {
        let Transfer { id, from, to, amount } = *transfer;
        let [id, from, to, amount] = [id, from, to, amount].map(u32::cast_signed);
        // In one order, or two would wait for each other.
        let mut moves = [[from, -amount], [to, amount]];
        moves.sort();
        let mut refused = self.connection.run(protocol, "BEGIN", &[]).await.err();
        if refused.is_none() {
            refused = self.connection.run(protocol, WRITE_DOWN, &[id, from, to, amount]).await.err();
        }
        for step in moves {
            if refused.is_none() {
                refused = self.connection.run(protocol, MOVE, &step).await.err();
            }
        }
        match refused {
            Some(refused) => self.give_up(protocol, refused).await,
            None => self.commit(protocol, true).await,
        }
    }

    async fn commit(&mut self, protocol: Protocol, writes: bool) -> Ended {
        match self.connection.run(protocol, "COMMIT", &[]).await {
            Ok(_) => Ended::well(),
            Err(refused) if writes => Ended::perhaps(refused),
            Err(refused) => Ended::refused(refused),
        }
    }

    /// Before a COMMIT was sent nothing can have happened.
    async fn give_up(&mut self, protocol: Protocol, refused: Refused) -> Ended {
        let mut ended = Ended::refused(refused);
        if ended.connected
            && let Err(refused) = self.connection.run(protocol, "ROLLBACK", &[]).await
        {
            ended.connected = false;
            ended.error = ended.error.map(|error| format!("{error}; then {}", refused.error));
        }
        ended
    }
}

fn pair(key: u32, value: Value) -> [i32; 2] {
    [key.cast_signed(), value.cast_signed()]
}

/// `1,2,3`. No row is an empty list.
fn numbers<N: FromStr<Err: Debug>>(text: Option<String>) -> Vec<N> {
    let text = text.unwrap_or_default();
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().expect("lists and balances are numbers")).collect()
}
