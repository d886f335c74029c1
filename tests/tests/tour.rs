//! docs/api.md, run as it is written.

use std::fs;
use std::process::{Command, Stdio};

use reqwest::Method;
use system_tests::{Shop, send};

/// Records each request with its status, and fails where `jq` finds nothing.
const WATCHED: &str = r#"
set -eu
curl() {
  local method=GET url= before= answer=0
  for argument; do
    case $before in -X) method=$argument ;; -d | --data-binary) [ $method != GET ] || method=POST ;; esac
    case $argument in http://*) url=$argument ;; esac
    before=$argument
  done
  command curl -D headers "$@" || answer=$?
  echo "$(sed -n 's/^HTTP[^ ]* \([0-9]*\).*/\1/p' headers | tail -n 1) $method $url" >> requests
  return $answer
}
jq() { command jq -e "$@"; }
"#;

#[tokio::test]
async fn every_command_of_the_tour_works_and_every_operation_is_in_it() {
    let shop = Shop::open().await;
    let tour = include_str!("../../docs/api.md");
    let commands: Vec<&str> =
        tour.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let script = format!("{WATCHED}\n{}", commands.join("\n").replace("http://localhost:8080", &shop.edge));
    let folder = std::env::temp_dir().join(format!("dockside-tour-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let limited = ["120", "bash", "-c", &script];
    let run =
        Command::new("timeout").args(limited).current_dir(&folder).stdin(Stdio::null()).output().unwrap();
    let requests = fs::read_to_string(folder.join("requests")).unwrap_or_default();
    fs::remove_dir_all(&folder).unwrap();
    let (out, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}\n{errors}\n{requests}", run.status);

    let requests: Vec<Vec<&str>> = requests.lines().map(|line| line.split(' ').collect()).collect();
    let refused: Vec<&str> =
        requests.iter().map(|request| request[0]).filter(|status| !status.starts_with('2')).collect();
    let announced: Vec<&str> = commands
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.rsplit_once("# ")?.1.split([' ', '\n']).next())
        .filter(|word| word.len() == 3 && word.parse::<u16>().is_ok())
        .collect();
    assert_eq!(refused, announced, "{requests:?}");

    let document = send(shop.request(Method::GET, "/openapi.json")).await.unwrap().body;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let shown = requests.iter().any(|request| {
                request[1].eq_ignore_ascii_case(method) && leads_to(&request[2][shop.edge.len()..], path)
            });
            assert!(shown, "docs/api.md lacks {method} {path}");
        }
    }
}

/// Whether a request's path is of this operation.
fn leads_to(path: &str, operation: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    let (path, operation): (Vec<_>, Vec<_>) = (path.split('/').collect(), operation.split('/').collect());
    path.len() == operation.len()
        && path.iter().zip(&operation).all(|(part, name)| part == name || name.starts_with('{'))
}
