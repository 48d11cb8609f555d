//! A client's connection: statements by either protocol, and what an error says about what has happened.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage, Statement};

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One message with the numbers in its text.
    Simple,
    /// Parse, Bind, Execute and Sync in one go, of the unnamed statement.
    Extended,
    /// Bind, Execute and Sync of a statement that was prepared before.
    Prepared,
}

pub const PROTOCOLS: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];

/// Longer than anything is held. Then the connection is given up.
const LIMIT: Duration = Duration::from_secs(60);

/// Of a statement, beside an error.
const SHOWN: usize = 40;

/// Why there is no answer.
#[derive(Debug)]
pub struct Refused {
    /// An SQLSTATE or a word, a colon, and more about it.
    pub error: String,
    /// Whether the server has said that a transaction that was to commit has not.
    pub rolled_back: bool,
    /// Whether the connection can still be used.
    pub connected: bool,
}

impl Refused {
    fn of(error: &Error, connected: bool) -> Refused {
        let Some(said) = error.as_db_error() else {
            return Refused {
                error: format!("connection lost: {error}"),
                rolled_back: false,
                connected: false,
            };
        };
        let code = said.code().code();
        Refused {
            error: format!("{code}: {}", said.message()),
            rolled_back: says_rolled_back(code),
            connected,
        }
    }

    fn late() -> Refused {
        Refused { error: "no answer in time: ".to_owned(), rolled_back: false, connected: false }
    }
}

/// Errors of the statement and of its transaction. Not those of the connection and of who may come in, and not 40003,
/// which says that nobody knows.
fn says_rolled_back(code: &str) -> bool {
    code != "40003" && matches!(&code[..2], "22" | "23" | "25" | "40" | "42" | "53" | "54" | "55")
}

/// One session.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    prepared: HashMap<&'static str, Statement>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// # Errors
    /// With what the server or the socket said.
    pub async fn open(config: &Config) -> Result<Connection, String> {
        let opened = tokio::time::timeout(LIMIT, config.connect(NoTls)).await;
        let (client, connection) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                return Err(Refused::of(&error, false).error);
            }
            Err(_) => return Err("not connected in time: ".to_owned()),
        };
        // It ends with the connection; what it would say, the statements say.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection { client, driver, prepared: HashMap::new() })
    }

    /// Runs a statement whose parameters `$1` to `$9` are of type int4. The first column of its first row.
    ///
    /// # Errors
    /// When it is refused, or there is no answer.
    pub async fn run(
        &mut self,
        protocol: Protocol,
        text: &'static str,
        numbers: &[i32],
    ) -> Result<Option<String>, Refused> {
        let mut refused = match tokio::time::timeout(LIMIT, self.send(protocol, text, numbers)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Refused::of(&error, !self.client.is_closed()),
            Err(_) => Refused::late(),
        };
        let statement: String = text.chars().take(SHOWN).collect();
        refused.error.push_str(&format!(", for {statement} ({protocol:?})"));
        Err(refused)
    }

    async fn send(
        &mut self,
        protocol: Protocol,
        text: &'static str,
        numbers: &[i32],
    ) -> Result<Option<String>, Error> {
        match protocol {
            Protocol::Simple => {
                let mut text = text.to_owned();
                for (at, number) in numbers.iter().enumerate() {
                    text = text.replace(&format!("${}", at + 1), &number.to_string());
                }
                let answer = self.client.simple_query(&text).await?;
                let row = answer.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                Ok(row.and_then(|row| row.get(0)).map(str::to_owned))
            }
            Protocol::Extended => {
                let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                    numbers.iter().map(|number| (number as &(dyn ToSql + Sync), Type::INT4)).collect();
                let rows = self.client.query_typed(text, &typed).await?;
                Ok(first(&rows))
            }
            Protocol::Prepared => {
                let statement = match self.prepared.get(text) {
                    Some(statement) => statement.clone(),
                    None => {
                        let types = vec![Type::INT4; numbers.len()];
                        let statement = self.client.prepare_typed(text, &types).await?;
                        self.prepared.insert(text, statement.clone());
                        statement
                    }
                };
                let given: Vec<&(dyn ToSql + Sync)> =
                    numbers.iter().map(|number| number as &(dyn ToSql + Sync)).collect();
                let rows = self.client.query(&statement, &given).await?;
                Ok(first(&rows))
            }
        }
    }
}

/// Columns that are read are text in every statement here; what a block says has none.
fn first(rows: &[tokio_postgres::Row]) -> Option<String> {
    rows.first().filter(|row| !row.is_empty()).and_then(|row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To take an unknown outcome for a rollback would hide a doubled write; the other way round nothing is hidden.
    #[test]
    fn only_errors_of_the_transaction_say_that_it_was_rolled_back() {
        for code in ["40001", "40P01", "23505", "25006", "42P01", "53300"] {
            assert!(says_rolled_back(code), "{code}");
        }
        for code in ["08006", "08007", "40003", "57P01", "57P03", "57014", "XX000", "58030"] {
            assert!(!says_rolled_back(code), "{code}");
        }
    }
}
