use std::process::ExitCode;

use user::Config;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("openapi") {
        println!("{}", user::openapi());
        return ExitCode::SUCCESS;
    }
    if let Some(done) = user::admin() {
        return done;
    }
    service::run(
        "user",
        |config: &Config| &config.process,
        async |config, lifecycle| user::start(config, &lifecycle).await.map(drop),
    )
}
