//! Interim answers.

use crate::support::{Client, Front, Instance, client::Kind};

const CONTINUE: &str = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n").await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let hints = client.get("/").await;
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</style.css>")));
    assert_eq!(client.response().await.text(), "ok");

    let mut old = front.client().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.response().await.status(), 200, "HTTP/1.0 knows no interim answers");
}

#[tokio::test]
async fn the_instance_decides_whether_the_client_may_continue() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(head) = connection.until(b"\r\n\r\n").await {
            assert!(String::from_utf8_lossy(&head).contains("Expect: 100-continue"));
            connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let body = connection.exactly(4).await.expect("the body");
            assert_eq!(body, b"body");
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..2 {
        client.send(CONTINUE).await;
        assert_eq!(client.response().await.status(), 100);
        client.send("body").await;
        assert_eq!(client.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn after_a_refusal_to_continue_the_connection_is_closed() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.until(b"\r\n\r\n").await;
        connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        assert_eq!(connection.rest().await, b"", "nothing of the body is sent");
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send(CONTINUE).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("connection")), (403, Some("close")));
    // Were the connection kept, these bytes could be a body or a request.
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(client.is_closed().await);
}
