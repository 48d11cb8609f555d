//! What `check` says. One behaviour per snapshot.

use crate::{refused, rendered};

macro_rules! says {
    ($($name:ident: $text:expr;)*) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(rendered(&refused($text)));
            }
        )*
    };
}

says! {
    all_problems_are_reported_at_once_in_the_order_of_the_text:
        "app = \"Guest Book\"\nstage = 3\nzonse = 2\n[web]\nrun = \"x\"\ninstances = \"four\"\ngrace = \"30 seconds\"\n[db]\nengine = \"postgers\"\n";
    a_broken_line_hides_nothing_but_itself:
        "app = \"a\"\nzones = = 2\n[web]\nrun = \"x\"\ninstances = 99\n";
    a_text_without_its_closing_quote_is_one_problem:
        "app = \"a\n[web]\nrun = \"x\"\n";
    a_text_without_quotes_is_recognised: "app = guestbook\n[web]\nrun = \"x\"\n";
    keys_below_a_broken_header_are_not_blamed: "app = \"a\"\n[web\nrun = \"x\"\n";
    a_table_with_double_brackets_is_no_table: "app = \"a\"\n[[web]]\nrun = \"x\"\n";
    a_table_given_as_a_text_is_recognised: "app = \"a\"\ndb = \"postgres\"\n[web]\nrun = \"x\"\n";
    a_key_of_a_table_inside_is_sent_there:
        "app = \"a\"\n[web]\nrun = \"x\"\n[db]\nengine = \"postgres\"\ncpu = 2\n";
    a_key_given_twice_shows_both_places:
        "app = \"a\"\n[web]\nrun = \"x\"\nrun = \"y\"\n";
    a_table_given_twice_shows_both_places:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\n[web]\nbuild = \"y\"\n";
    a_key_of_another_table_is_sent_home:
        "app = \"a\"\nrelease = \"migrate\"\n[web]\nrun = \"x\"\n";
    a_key_of_no_table_is_refused:
        "app = \"a\"\n[web]\nrun = \"x\"\n[cache]\nengine = \"redis\"\n";
    a_later_stage_is_promised_not_unknown:
        "app = \"a\"\nstage = 5\n[web]\nrun = \"x\"\n";
    a_number_beyond_its_range_is_told_the_limits:
        "app = \"a\"\nzones = 4\n[web]\nrun = \"x\"\n";
    a_number_in_quotes_is_recognised:
        "app = \"a\"\n[web]\nrun = \"x\"\ninstances = \"4\"\n";
    a_duration_without_a_unit_is_recognised:
        "app = \"a\"\n[web]\nrun = \"x\"\ngrace = 30\n";
    a_size_that_is_not_one_of_the_names_gets_the_nearest:
        "app = \"a\"\n[web]\nrun = \"x\"\nsize = \"smal\"\n";
    a_size_is_checked_inside_its_table:
        "app = \"a\"\n[web]\nrun = \"x\"\nsize = { cpus = 2, memory = 512 }\n";
    an_empty_text_is_told_what_it_needs:
        "";
    what_init_left_to_be_filled_in_is_no_command:
        "app = \"a\"\n[web]\nrun = \"./your-server\"\n";
    a_web_table_without_run_is_pointed_at:
        "app = \"a\"\n[web]\nbuild = \"make\"\n";
    a_database_without_an_engine_is_pointed_at:
        "app = \"a\"\n[web]\nrun = \"x\"\n[db]\nsize = \"small\"\n";
    variables_of_switchback_cannot_be_set:
        "app = \"a\"\n[web]\nrun = \"x\"\nenv = { PORT = 80, SWITCHBACK_X = \"1\", \"not-a-name\" = true }\n";
    a_path_that_leaves_the_folder_is_underlined_in_its_list:
        "app = \"a\"\n[web]\nrun = \"x\"\ninclude = [\"dist\", \"../secrets\", \"/etc\"]\n";
    two_listeners_of_one_address_show_both_places:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\nlisten = \":8443\"\nlisten_tls = \"127.0.0.1:8443\"\ntls = \"local\"\n";
    a_listener_on_the_default_of_another_is_told_so:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\nmetrics = 8080\n";
    an_address_for_tls_needs_tls:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\nlisten_tls = 8443\n";
    certificate_files_come_in_pairs:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\ntls = { certificate_chain = \"cert.pem\" }\n";
    a_host_name_is_no_address:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\nlisten = \"localhost:80\"\n";
    a_lone_address_is_not_yet_a_network:
        "app = \"a\"\n[web]\nrun = \"x\"\n[edge]\ntrusted_proxies = [\"10.0.0.1\"]\n";
    a_url_is_no_domain:
        "app = \"a\"\ndomain = \"https://Example.com/\"\n[web]\nrun = \"x\"\n";
    a_requirement_is_underlined_where_it_cannot_be_read:
        "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal]\nslo = [\"p99 < 250\", \"latency < 1s\"]\n";
    a_visit_is_told_what_it_needs:
        "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal.visit.signer]\nwait = 2\n";
    a_step_asks_for_one_path_and_only_a_post_has_a_form:
        "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal.visit.a]\nweight = 2\nsteps = [{ get = \"/\", post = \"/\" }, {}, { get = \"/\", form = { a = 1 } }]\n";
    a_step_given_as_a_path_is_recognised:
        "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal.visit.a]\nweight = 2\nsteps = \"/sign\"\n";
    visits_are_no_more_than_a_hundred_of_a_hundred:
        "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal.visit]\na = { weight = 60, steps = { get = \"/\" } }\nb = { weight = 50, steps = { get = \"/\" } }\n";
    an_app_whose_database_would_be_reserved_is_told_the_way_out:
        "app = \"postgres\"\n[web]\nrun = \"x\"\n[db]\nengine = \"postgres\"\n";
}

#[test]
fn programs_get_codes_places_and_help() {
    let json = refused("app = \"a\"\nstage = 4\n[web]\nrun = \"x\"\n").to_json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn a_thousand_problems_are_counted_but_not_all_kept() {
    let text: String = (0..1_000).map(|n| format!("k{n} = 1\n")).collect();
    let problems = refused(&text);
    assert_eq!(problems.iter().count(), manifest::MAX_PROBLEMS);
    // `app` and `run` are missing as well.
    assert_eq!(problems.to_string(), "switchback.toml has 1002 problems");
}
