//! Which routes are on which listener.

use myelin_http::{Condition, Draining, Listener, Resource, Routes, Server, health_routes, metrics_routes};

use crate::{App, client::Connection, echo, loopback, options};

#[tokio::test]
async fn each_listener_serves_its_own_resources() {
    let mut server = Server::new(options(), Draining::default());
    for (resource, path) in [
        (Resource::Client, "/client"),
        (Resource::Media, "/media"),
        (Resource::Federation, "/federation"),
        (Resource::Keys, "/keys"),
        (Resource::Replication, "/replication"),
    ] {
        let mut routes = Routes::new(App::default());
        routes.add_raw(http::Method::GET, path, echo);
        server.mount(resource, routes.build());
    }
    server.mount(Resource::Health, health_routes(|| vec![Condition { name: "database", met: true }]));
    server.mount(Resource::Metrics, metrics_routes(|| "up 1\n".to_owned()));
    let listener = |resource: Resource| Listener {
        bind: vec![loopback()],
        resources: vec![resource.into()],
        ..Listener::default()
    };
    let listeners =
        [Resource::Client, Resource::Federation, Resource::Replication, Resource::Metrics].map(listener);
    let running = server.start(&listeners).unwrap();

    let check = async |listener: usize, path: &str, status: u16, cors: bool| {
        let mut connection = Connection::open(running.addresses()[listener]).await;
        let answer = connection.ask(&format!("GET {path}"), &[], "").await;
        assert_eq!(answer.status, status, "{path} on listener {listener}");
        assert_eq!(
            answer.header("access-control-allow-origin").is_some(),
            cors,
            "{path} on listener {listener}"
        );
    };
    check(0, "/client", 200, true).await;
    check(0, "/media", 200, true).await;
    check(0, "/federation", 404, true).await;
    check(0, "/replication", 404, true).await;
    check(0, "/_synapse/metrics", 404, true).await;
    check(1, "/federation", 200, true).await;
    check(1, "/keys", 200, true).await;
    check(1, "/media", 200, true).await;
    check(1, "/client", 404, true).await;
    // A page of the web must not read these through the browser of somebody on our network.
    check(2, "/replication", 200, false).await;
    check(3, "/_synapse/metrics", 200, false).await;
    check(3, "/metrics", 200, false).await;
    check(3, "/client", 404, false).await;
    for listener in 0..4 {
        check(listener, "/health", 200, listener < 2).await;
        check(listener, "/health/ready", 200, listener < 2).await;
    }
}

#[test]
fn resources_have_the_names_of_the_configuration() {
    for resource in Resource::ALL {
        assert_eq!(Resource::from_name(resource.name()), Some(resource));
    }
    assert_eq!(Resource::from_name("webclient"), None);
}
