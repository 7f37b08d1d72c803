//! An API server in memory: objects, resource versions, preconditions, server-side apply by one manager, and a journal of every write.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// A write that was asked for, whether it changed anything or was refused.
#[derive(Clone, Debug)]
pub struct Write {
    pub method: Method,
    pub resource: String,
    pub name: String,
    pub subresource: Option<String>,
    pub body: Value,
}

#[derive(Default)]
pub struct State {
    /// By plural and name; one namespace is enough.
    pub objects: BTreeMap<(String, String), Value>,
    pub journal: Vec<Write>,
    counter: u64,
}

/// Shared by the client and the test.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

struct Target {
    resource: String,
    name: Option<String>,
    subresource: Option<String>,
}

fn target(path: &str) -> Target {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let at = parts.iter().position(|part| *part == "namespaces").expect("only namespaced paths are asked for") + 2;
    Target {
        resource: parts[at].to_owned(),
        name: parts.get(at + 1).map(|name| (*name).to_owned()),
        subresource: parts.get(at + 2).map(|name| (*name).to_owned()),
    }
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "ns")
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let query = parts.uri.query().unwrap_or("").to_owned();
        let target = target(parts.uri.path());
        let mut state = self.lock();
        let (status, answer) = state.answer(&parts.method, &target, &query, &content_type, &body);
        if parts.method != Method::GET {
            state.journal.push(Write {
                method: parts.method,
                resource: target.resource,
                name: target.name.unwrap_or_default(),
                subresource: target.subresource,
                body,
            });
        }
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(answer.to_string().into_bytes()))
            .unwrap()
    }
}

fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": message}),
    )
}

/// Objects merge, everything else is replaced; `null` takes away where the patch is a merge patch.
fn merge(into: &mut Value, patch: &Value, null_removes: bool) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() && null_removes {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value, null_removes);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

impl State {
    pub fn get(&self, resource: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource.to_owned(), name.to_owned()))
    }

    pub fn get_mut(&mut self, resource: &str, name: &str) -> Option<&mut Value> {
        self.objects.get_mut(&(resource.to_owned(), name.to_owned()))
    }

    pub fn names(&self, resource: &str) -> Vec<String> {
        self.objects.keys().filter(|(kind, _)| kind == resource).map(|(_, name)| name.clone()).collect()
    }

    pub fn remove(&mut self, resource: &str, name: &str) -> Option<Value> {
        self.objects.remove(&(resource.to_owned(), name.to_owned()))
    }

    /// Stores an object as the API server would: uid, version, generation.
    pub fn create(&mut self, resource: &str, mut object: Value) -> Value {
        self.counter += 1;
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["namespace"] = json!("ns");
        object["metadata"]["uid"] = json!(format!("uid-{}", self.counter));
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["metadata"]["resourceVersion"] = json!(self.counter.to_string());
        self.objects.insert((resource.to_owned(), name), object.clone());
        object
    }

    /// Counts versions on when something changed.
    pub fn touch(&mut self, resource: &str, name: &str, before: &Value) -> Value {
        self.counter += 1;
        let version = self.counter.to_string();
        let object = self.get_mut(resource, name).unwrap();
        if object != before {
            object["metadata"]["resourceVersion"] = json!(version);
            if object["spec"] != before["spec"] {
                object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            }
        }
        object.clone()
    }

    fn answer(&mut self, method: &Method, target: &Target, query: &str, content_type: &str, body: &Value) -> (StatusCode, Value) {
        let resource = target.resource.as_str();
        let Some(name) = target.name.as_deref() else {
            if *method == Method::POST {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.get(resource, &name).is_some() {
                    return failure(StatusCode::CONFLICT, "AlreadyExists", &format!("{resource} {name} exists"));
                }
                return (StatusCode::CREATED, self.create(resource, body.clone()));
            }
            return (StatusCode::OK, self.list(resource, query));
        };
        let Some(before) = self.get(resource, name).cloned() else {
            if *method == Method::PATCH && content_type.contains("apply") && target.subresource.is_none() {
                let mut object = body.clone();
                object["metadata"]["name"] = json!(name);
                return (StatusCode::CREATED, self.create(resource, object));
            }
            return failure(StatusCode::NOT_FOUND, "NotFound", &format!("{resource} {name} not found"));
        };
        match *method {
            Method::GET => (StatusCode::OK, before),
            Method::PUT => {
                if body["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict", "the object has been modified");
                }
                let mut object = body.clone();
                for key in ["uid", "generation", "creationTimestamp"] {
                    object["metadata"][key] = before["metadata"][key].clone();
                }
                *self.get_mut(resource, name).unwrap() = object;
                (StatusCode::OK, self.touch(resource, name, &before))
            }
            Method::PATCH => {
                let version = &body["metadata"]["resourceVersion"];
                if version.is_string() && *version != before["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict", "the object has been modified");
                }
                let object = self.get_mut(resource, name).unwrap();
                if target.subresource.as_deref() == Some("status") {
                    object["status"] = body["status"].clone();
                } else {
                    let mut patch = body.clone();
                    patch.as_object_mut().unwrap().remove("status");
                    merge(object, &patch, content_type.contains("merge-patch"));
                }
                (StatusCode::OK, self.touch(resource, name, &before))
            }
            Method::DELETE => {
                let uid = &body["preconditions"]["uid"];
                if uid.is_string() && *uid != before["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT, "Conflict", "the uid in the precondition does not match");
                }
                let finalizers = before["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
                if finalizers {
                    self.get_mut(resource, name).unwrap()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
                } else {
                    self.remove(resource, name);
                }
                (StatusCode::OK, before)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "not here"),
        }
    }

    fn list(&self, resource: &str, query: &str) -> Value {
        let decoded = query.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
        let selector = decoded.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or("");
        let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|part| part.split_once('=')).collect();
        let matches = |object: &Value| wanted.iter().all(|(key, value)| object["metadata"]["labels"][key] == json!(value));
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((kind, _), object)| kind == resource && matches(object))
            .map(|(_, object)| object)
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.counter.to_string()}, "items": items})
    }
}
