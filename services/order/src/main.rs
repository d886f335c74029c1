use std::process::ExitCode;

use order::Config;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("keygen") => return order::keygen(),
        Some("openapi") => {
            println!("{}", order::openapi());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    service::run(
        "order",
        |config: &Config| &config.process,
        async |config, lifecycle| order::start(config, &lifecycle).await.map(drop),
    )
}
