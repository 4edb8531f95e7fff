//! Which handler serves which path.

use std::{borrow::Cow, sync::Arc};

use http::Method;
use ruma::api::{Metadata as _, path_builder::PathBuilder as _};

use crate::{
    handler::{BoxHandler, Handler, RawHandler, erase, erase_raw},
    observe::Endpoint,
    router::{Route, Router, numbered, parameter},
};

/// Paths of before the specification had releases, which old clients still use, and what they became.
const OLD_PREFIXES: [(&str, &str); 2] =
    [("/_matrix/client/r0/", "/_matrix/client/api/v1/"), ("/_matrix/media/r0/", "/_matrix/media/v1/")];

/// The endpoints of one API with the state that their handlers share.
///
/// Each endpoint family has a function that adds its handlers:
///
/// ```
/// # use myelin_http::{ApiError, Caller, RequestHead, Routes};
/// use ruma::api::client::account::whoami;
///
/// # #[derive(Clone)]
/// # struct App;
/// # struct LocalUser(ruma::OwnedUserId);
/// # impl Caller<App> for LocalUser {
/// #     async fn authenticate(_: &App, _: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
/// #         token.map(|_| Self(ruma::owned_user_id!("@a:b.c"))).ok_or_else(ApiError::missing_token)
/// #     }
/// # }
/// pub fn routes(routes: &mut Routes<App>) {
///     routes.add(whoami);
/// }
///
/// async fn whoami(_: App, user: LocalUser, _: whoami::v3::Request) -> Result<whoami::v3::Response, ApiError> {
///     Ok(whoami::v3::Response::new(user.0, false))
/// }
/// # let mut all = Routes::new(App);
/// # routes(&mut all);
/// # all.build();
/// ```
pub struct Routes<S> {
    state: S,
    mounted: Vec<Mounted>,
    aliases: Vec<(String, String)>,
}

/// One endpoint that was added, to say more about it.
pub struct Mounted {
    method: Method,
    paths: Vec<Cow<'static, str>>,
    route: Route,
}

impl Mounted {
    /// This endpoint's requests may wait for tens of seconds. They count against the limit of waiting requests
    /// rather than of working ones, are dropped when the client leaves whatever their method, and should watch
    /// [`RequestHead::draining`](crate::RequestHead::draining). The query parameter `from` says from where on a request waits: one that
    /// has it is answered on the listener's thread, because all that is left to be done is to say what is new.
    pub fn long_poll(&mut self, from: &'static str) -> &mut Self {
        self.route.long_poll = Some(from);
        self
    }

    /// Bodies may have this many bytes, rather than what the server allows in general.
    pub fn body_limit(&mut self, bytes: usize) -> &mut Self {
        self.route.body_limit = Some(bytes);
        self
    }

    /// The body need not be a JSON object, for uploads. What [`Routes::add_raw`] adds is never looked into.
    pub fn any_body(&mut self) -> &mut Self {
        self.route.any_body = true;
        self
    }

    /// Requests are counted but not logged: probes come every few seconds and say nothing.
    pub fn quiet(&mut self) -> &mut Self {
        self.route.endpoint = Arc::new(Endpoint::new(self.route.endpoint.name().clone(), true));
        self
    }

    /// Serves this path as well. It has as many parameters as the others, in the same order.
    pub fn also_at(&mut self, path: &'static str) -> &mut Self {
        self.paths.push(Cow::Borrowed(path));
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No endpoints yet.
    pub fn new(state: S) -> Self {
        Self { state, mounted: Vec::new(), aliases: Vec::new() }
    }

    /// Adds a handler under its request's method and all of its paths: stable, `r0`, unstable and the still older
    /// `/_matrix/client/api/v1`.
    pub fn add<A, H>(&mut self, handler: H) -> &mut Mounted
    where
        A: 'static,
        H: Handler<S, A>,
    {
        let method = H::Request::METHOD;
        // Oldest first, and sometimes the same twice.
        let mut known: Vec<&'static str> = Vec::new();
        for path in H::Request::PATH_BUILDER.all_paths() {
            if !known.contains(&path) {
                known.push(path);
            }
        }
        let endpoint = endpoint_name(&method, &known);
        let mut paths: Vec<Cow<'static, str>> = known.iter().copied().map(Cow::Borrowed).collect();
        for (newer, older) in OLD_PREFIXES {
            let renamed = known.iter().filter_map(|path| path.strip_prefix(newer));
            paths.extend(renamed.map(|rest| Cow::Owned(format!("{older}{rest}"))));
        }
        self.mount(method, paths, endpoint, erase(self.state.clone(), handler))
    }

    /// Adds a handler for what ruma has no type for. `path` has its parameters as `{name}`.
    pub fn add_raw<A, H>(&mut self, method: Method, path: &'static str, handler: H) -> &mut Mounted
    where
        A: 'static,
        H: RawHandler<S, A>,
    {
        let names = parameter_names(path);
        let endpoint = endpoint_name(&method, &[path]);
        let handler = erase_raw(self.state.clone(), names, handler);
        self.mount(method, vec![Cow::Borrowed(path)], endpoint, handler)
    }

    /// Serves requests for `from` by what is at `to`, whatever their method. `from` may have fewer parameters: those
    /// that ruma takes as optional at the end.
    ///
    /// Order does not matter: aliases are resolved by [`Routes::build`].
    pub fn alias(&mut self, from: impl Into<String>, to: impl Into<String>) {
        self.aliases.push((from.into(), to.into()));
    }

    fn mount(
        &mut self,
        method: Method,
        paths: Vec<Cow<'static, str>>,
        endpoint: Arc<str>,
        handler: BoxHandler,
    ) -> &mut Mounted {
        let endpoint = Arc::new(Endpoint::new(endpoint, false));
        let route = Route { handler, endpoint, body_limit: None, long_poll: None, any_body: false };
        self.mounted.push(Mounted { method, paths, route });
        self.mounted.last_mut().expect("it was just pushed")
    }

    /// Makes the look-up table.
    ///
    /// # Panics
    ///
    /// If two handlers have the same method and path, or an alias leads nowhere: mistakes that the first test finds.
    pub fn build(self) -> Router {
        let mut router = Router::default();
        for Mounted { method, paths, route } in self.mounted {
            let route = Arc::new(route);
            for path in &paths {
                router.insert(&method, path, &route);
                for (from, _) in self.aliases.iter().filter(|(_, to)| same_pattern(to, path)) {
                    router.insert(&method, from, &route);
                }
            }
        }
        for (from, to) in &self.aliases {
            assert!(router.knows_pattern(from), "the alias {from} leads to {to}, where nothing is mounted");
        }
        router
    }
}

/// The operation's name if the specification has it, else its newest path.
fn endpoint_name(method: &Method, paths: &[&'static str]) -> Arc<str> {
    let operation = paths.iter().find_map(|path| myelin_routing::find(method, path));
    let newest = || paths.last().copied().unwrap_or_default();
    operation.map_or_else(newest, |operation| operation.name.as_str()).into()
}

fn parameter_names(path: &str) -> Vec<Arc<str>> {
    path.split('/').filter_map(parameter).map(|name| Arc::from(name.trim_start_matches('*'))).collect()
}

fn same_pattern(one: &str, other: &str) -> bool {
    numbered(one) == numbered(other)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use ruma::api::client::{
        account::whoami,
        profile::{delete_profile_field, get_profile_field},
        session::login,
        state::get_state_event_for_key,
        tag::create_tag,
        uiaa::UiaaInfo,
    };
    use serde_json::{Value as JsonValue, json};

    use super::*;
    use crate::{ApiError, Caller, RawRequest, RawResponse, RequestHead};

    #[derive(Clone)]
    struct App;

    struct Token(String);

    impl Caller<App> for Token {
        async fn authenticate(_: &App, _: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
            match token {
                None => Err(ApiError::missing_token()),
                Some("wrong") => Err(ApiError::unknown_token("Unknown access token", false)),
                Some(token) => Ok(Self(token.to_owned())),
            }
        }
    }

    struct Anyone;

    impl Caller<App> for Anyone {
        async fn authenticate(_: &App, _: &RequestHead, _: Option<&str>) -> Result<Self, ApiError> {
            Ok(Self)
        }
    }

    async fn whoami(_: App, token: Token, _: whoami::v3::Request) -> Result<whoami::v3::Response, ApiError> {
        let user_id = format!("@{}:localhost", token.0).try_into().map_err(ApiError::internal)?;
        Ok(whoami::v3::Response::new(user_id, false))
    }

    async fn login(_: App, _: Anyone, _: login::v3::Request) -> Result<login::v3::Response, ApiError> {
        Err(ApiError::uiaa(UiaaInfo::new(Vec::new())))
    }

    /// Answers with what has arrived, so that tests see it.
    async fn create_tag(
        _: App,
        _: Token,
        request: create_tag::v3::Request,
        head: RequestHead,
    ) -> Result<RawResponse, ApiError> {
        let seen = json!({
            "room": request.room_id, "tag": request.tag, "order": request.tag_info.order, "endpoint": head.endpoint(),
        });
        Ok(RawResponse::json(seen.to_string()))
    }

    async fn get_state(
        _: App,
        _: Anyone,
        request: get_state_event_for_key::v3::Request,
    ) -> Result<RawResponse, ApiError> {
        let seen = json!({ "type": request.event_type, "key": request.state_key });
        Ok(RawResponse::json(seen.to_string()))
    }

    async fn raw(_: App, request: RawRequest) -> Result<RawResponse, ApiError> {
        let body: JsonValue = request.json()?;
        let seen = json!({ "one": request.param("one"), "rest": request.param("rest"), "body": body });
        Ok(RawResponse::json(seen.to_string()))
    }

    fn router() -> Router {
        let mut routes = Routes::new(App);
        routes.add(whoami);
        routes.add(login);
        routes.add(create_tag);
        routes.add(get_state);
        routes.add(async |_: App, _: Anyone, _: get_profile_field::v3::Request| Ok(RawResponse::json("{}")));
        routes
            .add(async |_: App, _: Anyone, _: delete_profile_field::v3::Request| Ok(RawResponse::json("{}")));
        routes.add_raw(Method::POST, "/_synapse/{one}/x/{*rest}", raw);
        routes.alias(
            "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/",
            "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}",
        );
        routes.build()
    }

    async fn ask(
        method: Method,
        uri: &str,
        token: Option<&str>,
        body: &'static str,
    ) -> (StatusCode, JsonValue) {
        let mut request = http::Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = router().call(request.body(body).unwrap()).await;
        let bytes = response.bytes().expect("nothing here is streamed");
        (response.status(), serde_json::from_slice(bytes).expect("every answer is JSON"))
    }

    #[tokio::test]
    async fn requests_reach_their_handler_with_decoded_arguments() {
        let check = async |method, uri: &str, body, answer: JsonValue| {
            assert_eq!(ask(method, uri, Some("alice"), body).await, (StatusCode::OK, answer), "{uri}");
        };
        let me = || json!({ "user_id": "@alice:localhost" });
        check(Method::GET, "/_matrix/client/v3/account/whoami", "", me()).await;
        check(Method::GET, "/_matrix/client/r0/account/whoami", "", me()).await;
        check(Method::GET, "/_matrix/client/api/v1/account/whoami", "", me()).await;
        check(Method::HEAD, "/_matrix/client/v3/account/whoami", "", me()).await;
        check(
            Method::PUT,
            "/_matrix/client/v3/user/@a:b.c/rooms/!r%2F1:b.c/tags/u.w%20%C3%B6rk",
            r#"{"order": 0.5}"#,
            json!({ "room": "!r/1:b.c", "tag": "u.w \u{f6}rk", "order": 0.5, "endpoint": "setRoomTag" }),
        )
        .await;
        let state = "/_matrix/client/v3/rooms/!r:b.c/state/m.room.name/";
        check(Method::GET, state, "", json!({ "type": "m.room.name", "key": "" })).await;
        check(Method::GET, &format!("{state}%2F"), "", json!({ "type": "m.room.name", "key": "/" })).await;
        check(
            Method::POST,
            "/_synapse/a%20b/x/c/d%2Fe",
            r#"{"n": 1}"#,
            json!({ "one": "a b", "rest": "c/d/e", "body": { "n": 1 } }),
        )
        .await;
        check(Method::DELETE, "/_matrix/client/v3/profile/@a:b.c/displayname", "", json!({})).await;
    }

    #[tokio::test]
    async fn bad_requests_get_the_errcode_of_the_specification() {
        const TAG: &str = "/_matrix/client/v3/user/@a:b.c/rooms/!r:b.c/tags/x";
        let check = async |method: Method, uri: &str, token, body, status: u16, errcode: &str| {
            let (got, json) = ask(method.clone(), uri, token, body).await;
            assert_eq!(
                (got.as_u16(), json["errcode"].as_str()),
                (status, Some(errcode)),
                "{method} {uri} {body}"
            );
            assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        };
        let token = Some("alice");
        let whoami = "/_matrix/client/v3/account/whoami";
        check(Method::GET, "/", token, "", 404, "M_UNRECOGNIZED").await;
        check(Method::GET, "/_matrix/client/v3/account/whoami/", token, "", 404, "M_UNRECOGNIZED").await;
        check(Method::GET, "/_matrix/client/v9/account/whoami", token, "", 404, "M_UNRECOGNIZED").await;
        check(Method::POST, whoami, token, "{}", 405, "M_UNRECOGNIZED").await;
        check(Method::PATCH, whoami, token, "{}", 405, "M_UNRECOGNIZED").await;
        check(Method::GET, whoami, None, "", 401, "M_MISSING_TOKEN").await;
        check(Method::GET, whoami, Some("wrong"), "", 401, "M_UNKNOWN_TOKEN").await;
        // Who is not known is not told what is wrong with the body either.
        check(Method::PUT, TAG, None, "no JSON", 401, "M_MISSING_TOKEN").await;
        check(Method::PUT, TAG, token, "no JSON", 400, "M_NOT_JSON").await;
        check(Method::PUT, TAG, token, "{", 400, "M_NOT_JSON").await;
        check(Method::PUT, TAG, token, r#"{"order": "high"}"#, 400, "M_BAD_JSON").await;
        check(Method::PUT, TAG, token, "[]", 400, "M_BAD_JSON").await;
        check(Method::PUT, TAG, token, " \"text\"", 400, "M_BAD_JSON").await;
        check(Method::PUT, TAG, token, "[", 400, "M_NOT_JSON").await;
        check(Method::PUT, &TAG.replace("!r:b.c", "r"), token, "{}", 400, "M_INVALID_PARAM").await;
        check(Method::PUT, &TAG.replace("!r:b.c", "%FF"), token, "{}", 400, "M_INVALID_PARAM").await;
        check(Method::POST, "/_matrix/client/v3/login", None, "{}", 400, "M_BAD_JSON").await;
        check(
            Method::POST,
            "/_matrix/client/v3/login",
            None,
            r#"{"type": "m.login.token"}"#,
            400,
            "M_MISSING_PARAM",
        )
        .await;
        check(Method::POST, "/_synapse/a/x/b", token, "{", 400, "M_NOT_JSON").await;
        check(Method::POST, "/_synapse/a/x/b", token, "[]", 400, "M_BAD_JSON").await;
    }

    #[tokio::test]
    async fn every_operation_of_the_specification_is_served_or_unrecognized() {
        let router = router();
        let mut served = 0;
        for operation in myelin_routing::operations() {
            if router.serves(&operation.method, operation.path) {
                served += 1;
                continue;
            }
            let (status, json) = ask(operation.method.clone(), operation.path, Some("alice"), "{}").await;
            assert!(matches!(status.as_u16(), 404 | 405), "{}: {status}", operation.name);
            assert_eq!(json["errcode"], "M_UNRECOGNIZED", "{}", operation.name);
        }
        // whoami, login, setRoomTag, getRoomStateWithKey and two of profiles.
        assert_eq!(served, 6);
    }

    #[test]
    #[should_panic(expected = "can't be mounted")]
    fn two_handlers_for_one_path_are_a_mistake() {
        let mut routes = Routes::new(App);
        routes.add(whoami);
        routes.add(whoami);
        routes.build();
    }

    #[test]
    #[should_panic(expected = "nothing is mounted")]
    fn an_alias_to_nowhere_is_a_mistake() {
        let mut routes = Routes::new(App);
        routes.alias("/a", "/b");
        routes.build();
    }
}
