//! Push rules ([spec](https://spec.matrix.org/v1.19/client-server-api/#push-rules-api)).

use myelin_http::{ApiError, JsonBody, Routes};
use ruma::{
    api::client::push::{
        PushRule, delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled,
        get_pushrules_all, get_pushrules_global_scope, set_pushrule, set_pushrule_actions,
        set_pushrule_enabled,
    },
    push::{AnyPushRuleRef, RuleKind},
};

use crate::{App, LocalUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(list_all);
    routes.add(list_global);
    routes.add(get);
    routes.add(put);
    routes.add(delete);
    routes.add(get_enabled);
    routes.add(set_enabled);
    routes.add(get_actions);
    routes.add(set_actions);
}

async fn list_all(
    app: App,
    user: LocalUser,
    _: get_pushrules_all::v3::Request,
) -> Result<JsonBody, ApiError> {
    // What `/sync` sends, empty kinds included, which ruma's type would leave out.
    let content = app.push_rules.content(&user.user_id).await.map_err(api)?;
    Ok(JsonBody(content.into()))
}

async fn list_global(
    app: App,
    user: LocalUser,
    _: get_pushrules_global_scope::v3::Request,
) -> Result<JsonBody, ApiError> {
    let rules = app.push_rules.json(&user.user_id).await.map_err(api)?;
    Ok(JsonBody(rules.into()))
}

/// Looks at one rule.
async fn with_rule<T>(
    app: &App,
    user: &LocalUser,
    kind: &RuleKind,
    rule_id: &str,
    look: impl FnOnce(AnyPushRuleRef<'_>) -> T,
) -> Result<T, ApiError> {
    let rules = app.push_rules.ruleset(&user.user_id).await.map_err(api)?;
    rules
        .get(kind.clone(), rule_id)
        .map(look)
        .ok_or_else(|| ApiError::not_found("The push rule was not found"))
}

async fn get(
    app: App,
    user: LocalUser,
    request: get_pushrule::v3::Request,
) -> Result<get_pushrule::v3::Response, ApiError> {
    let rule =
        with_rule(&app, &user, &request.kind, &request.rule_id, |rule| PushRule::from(rule.to_owned()))
            .await?;
    Ok(get_pushrule::v3::Response::new(rule))
}

async fn put(
    app: App,
    user: LocalUser,
    request: set_pushrule::v3::Request,
) -> Result<set_pushrule::v3::Response, ApiError> {
    let set_pushrule::v3::Request { rule, before, after, .. } = request;
    app.push_rules.put_rule(&user.user_id, rule, after, before).await.map_err(api)?;
    Ok(set_pushrule::v3::Response::new())
}

async fn delete(
    app: App,
    user: LocalUser,
    request: delete_pushrule::v3::Request,
) -> Result<delete_pushrule::v3::Response, ApiError> {
    app.push_rules.remove_rule(&user.user_id, request.kind, request.rule_id).await.map_err(api)?;
    Ok(delete_pushrule::v3::Response::new())
}

async fn get_enabled(
    app: App,
    user: LocalUser,
    request: get_pushrule_enabled::v3::Request,
) -> Result<get_pushrule_enabled::v3::Response, ApiError> {
    let enabled = with_rule(&app, &user, &request.kind, &request.rule_id, |rule| rule.enabled()).await?;
    Ok(get_pushrule_enabled::v3::Response::new(enabled))
}

async fn set_enabled(
    app: App,
    user: LocalUser,
    request: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response, ApiError> {
    let set_pushrule_enabled::v3::Request { kind, rule_id, enabled, .. } = request;
    app.push_rules.set_enabled(&user.user_id, kind, rule_id, enabled).await.map_err(api)?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

async fn get_actions(
    app: App,
    user: LocalUser,
    request: get_pushrule_actions::v3::Request,
) -> Result<get_pushrule_actions::v3::Response, ApiError> {
    let actions =
        with_rule(&app, &user, &request.kind, &request.rule_id, |rule| rule.actions().to_vec()).await?;
    Ok(get_pushrule_actions::v3::Response::new(actions))
}

async fn set_actions(
    app: App,
    user: LocalUser,
    request: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response, ApiError> {
    let set_pushrule_actions::v3::Request { kind, rule_id, actions, .. } = request;
    app.push_rules.set_actions(&user.user_id, kind, rule_id, actions).await.map_err(api)?;
    Ok(set_pushrule_actions::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    const RULES: &str = "/_matrix/client/v3/pushrules/global";

    #[tokio::test]
    async fn rules_of_ones_own_are_made_ordered_changed_and_removed() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let rule = json!({ "actions": ["notify"], "pattern": "cake" });
        let one = format!("{RULES}/content/one");
        check(app.put(&one, Some(&alice), rule.clone()).await, 200, "");
        check(app.put(&format!("{RULES}/content/two?before=one"), Some(&alice), rule.clone()).await, 200, "");
        let (_, body) = app.get(&format!("{RULES}/"), Some(&alice)).await;
        let ids: Vec<_> = body["content"].as_array().unwrap().iter().map(|rule| &rule["rule_id"]).collect();
        assert_eq!(ids[..2], [&json!("two"), &json!("one")]);
        let (_, body) = app.get("/_matrix/client/v3/pushrules/", Some(&bob)).await;
        assert_eq!(body["global"]["room"], json!([]), "kinds without rules are there");
        assert!(!body["global"].to_string().contains("cake"), "rules are one's own");

        check(app.put(&format!("{one}/enabled"), Some(&alice), json!({ "enabled": false })).await, 200, "");
        assert_eq!(
            app.get(&format!("{one}/enabled"), Some(&alice)).await,
            (200, json!({ "enabled": false }))
        );
        check(app.put(&format!("{one}/actions"), Some(&alice), json!({ "actions": [] })).await, 200, "");
        assert_eq!(app.get(&format!("{one}/actions"), Some(&alice)).await, (200, json!({ "actions": [] })));
        let (_, body) = app.get(&one, Some(&alice)).await;
        assert_eq!((&body["pattern"], &body["enabled"]), (&json!("cake"), &json!(false)));

        check(app.delete(&one, Some(&alice), Value::Null).await, 200, "");
        check(app.get(&one, Some(&alice)).await, 404, "M_NOT_FOUND");
        check(app.delete(&one, Some(&alice), Value::Null).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn what_makes_no_rule_is_refused() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let refuse = async |path: &str, body: Value, errcode: &str| {
            let status = if errcode == "M_NOT_FOUND" { 404 } else { 400 };
            check(app.put(&format!("{RULES}/{path}"), Some(&alice), body).await, status, errcode);
        };
        let rule = json!({ "actions": ["notify"], "pattern": "cake" });
        refuse("content/.mine", rule.clone(), "M_INVALID_PARAM").await;
        refuse("content/one?before=none", rule.clone(), "M_UNKNOWN").await;
        refuse("content/one", json!({ "actions": ["notify"] }), "M_MISSING_PARAM").await;
        refuse("override/.m.rule.none/enabled", json!({ "enabled": true }), "M_NOT_FOUND").await;
        check(
            app.delete(&format!("{RULES}/override/.m.rule.master"), Some(&alice), Value::Null).await,
            400,
            "M_INVALID_PARAM",
        );
    }
}
