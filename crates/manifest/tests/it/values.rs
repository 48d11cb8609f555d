//! What values become in the graph.

use manifest::keys::TOP;
use model::{LoadBalancer, Rehearsal, Service, Size};

use crate::read;

/// Every key once.
const EVERY_KEY: &str = r#"
app = "guestbook"
stage = 2
domain = "guestbook.example.com"
zones = 3

[web]
run = "bin/serve"
build = "make"
release = "bin/migrate"
include = ["bin", "assets/"]
instances = 6
size = { cpu = 0.5, memory = "512MB" }
health = "/ready"
grace = "1m"
start_timeout = "90s"
protocol = "h2c"
user = "www-data"
env = { LOG_LEVEL = "info", WORKERS = 4, DEBUG = false }
keep_releases = 10
deploy = { window = "30s", max_worse_percent = 2, min_answers = 100 }

[db]
engine = "postgres"
size = { cpu = 2, memory = "4GB" }
standbys = 2
read_replicas = 3
without_standby = "degrade"
pool = { mode = "session", clients = 50, hold = "1m", max_replica_lag = "2s" }
backups = { to = "/srv/backups", every = "6h", keep = 14 }
name = "entries"

[edge]
listen = ":80"
tls = { certificate_chain = "tls/chain.pem", private_key = "tls/key.pem" }
listen_tls = "[::1]:443"
metrics = 9090
threads = 2
access_log = false
request_timeout = "1500ms"
max_body = "20MB"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]

[rehearsal]
slo = ["p99 < 500ms", "p99{search} < 1s", "shed < 1%"]

[rehearsal.visit.NAME]
weight = 2
steps = [
    { get = "/sign" },
    { post = "/sign", form = { name = "{random}", age = 30, terms = true }, think = "5s", expect = 303 },
]
"#;

fn service(web: &str) -> Service {
    let manifest = read(&format!("app = \"a\"\n[web]\nrun = \"x\"\n{web}\n")).unwrap();
    manifest.graph().services().next().unwrap().1.clone()
}

fn load_balancer(edge: &str) -> LoadBalancer {
    let manifest = read(&format!("app = \"a\"\n[web]\nrun = \"x\"\n[edge]\n{edge}\n")).unwrap();
    manifest.graph().load_balancers().next().unwrap().1.clone()
}

#[test]
fn every_key_reaches_the_graph() {
    let keys = toml::Value::Table(toml::from_str(EVERY_KEY).unwrap());
    for table in TOP.all() {
        for card in table.cards {
            let path = table.path(card.key);
            let value = path.split('.').try_fold(&keys, in_value_or_list);
            assert!(value.is_some(), "{path} is not in this test's manifest");
        }
    }
    let manifest = read(EVERY_KEY).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(manifest.graph()).unwrap());
}

fn in_value_or_list<'a>(value: &'a toml::Value, key: &str) -> Option<&'a toml::Value> {
    match value {
        toml::Value::Array(list) => list.iter().find_map(|entry| entry.get(key)),
        value => value.get(key),
    }
}

fn rehearsal(text: &str) -> Rehearsal {
    let manifest = read(&format!("app = \"a\"\n[web]\nrun = \"x\"\n{text}\n")).unwrap();
    manifest.graph().rehearsal.clone().unwrap()
}

#[test]
fn a_requirement_may_stand_alone_and_one_step_too() {
    let one = rehearsal("[rehearsal]\nslo = \"p99 < 1s\"\nvisit.a = { weight = 1, steps = { get = \"/\" } }");
    let listed =
        rehearsal("[rehearsal]\nslo = [\"p99 < 1s\"]\nvisit.a = { weight = 1, steps = [{ get = \"/\" }] }");
    assert_eq!(one, listed);
    let headers = "[rehearsal]\nslo = \"p99 < 1s\"\n[rehearsal.visit.a]\nweight = 1\n[[rehearsal.visit.a.steps]]\nget = \"/\"";
    assert_eq!(rehearsal(headers), one);
}

#[test]
fn a_rehearsal_requires_what_is_usual_and_reads_unless_it_is_told_to_write() {
    let empty = rehearsal("[rehearsal]");
    assert_eq!(empty, Rehearsal::default());
    assert!(!empty.writes() && !empty.slo.is_empty());
    assert!(!rehearsal("[rehearsal.visit.a]\nweight = 1\nsteps = { get = \"/\" }").writes());
    assert!(rehearsal("[rehearsal.visit.a]\nweight = 1\nsteps = { post = \"/\" }").writes());
    assert_eq!(read("app = \"a\"\n[web]\nrun = \"x\"\n").unwrap().graph().rehearsal, None);
}

#[test]
fn an_address_may_be_short() {
    for (written, meant) in [
        ("8080", "127.0.0.1:8080"),
        ("0", "127.0.0.1:0"),
        ("\":80\"", "0.0.0.0:80"),
        ("\"10.0.0.7:80\"", "10.0.0.7:80"),
        ("\"[::1]:80\"", "[::1]:80"),
    ] {
        assert_eq!(load_balancer(&format!("listen = {written}")).listen.to_string(), meant);
    }
}

#[test]
fn tls_of_the_local_ca_has_no_certificate_files() {
    let tls = load_balancer("tls = \"local\"").tls.unwrap();
    assert_eq!((tls.listen.to_string(), tls.certificate), ("127.0.0.1:8443".to_owned(), None));
    assert_eq!(load_balancer("").tls, None);
}

#[test]
fn a_named_size_is_the_same_as_its_table() {
    assert_eq!(service("size = \"micro\"").size, service("size = { cpu = 0.5, memory = \"512MB\" }").size);
    assert_eq!(service("").size, Size::UNLIMITED);
    assert_eq!(service("size = { cpu = 2 }").size.memory, None);
}

#[test]
fn numbers_and_booleans_become_texts_in_the_environment() {
    let env = service("env = { A = 1, B = true, C = \"x y\" }").env;
    let pairs: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("A", "1"), ("B", "true"), ("C", "x y")]);
}
