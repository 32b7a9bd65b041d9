//! How far a stream came, and what is sent to go on with it.

use serde_json::{Map, Value, json};

use crate::error::{Error, Failure};

/// A stream so far.
#[derive(Debug)]
pub(crate) struct Progress {
    path: &'static str,
    body: Map<String, Value>,
    form: Form,
    /// What the stream began with, as it is sent back: members of the body.
    origin: Option<Map<String, Value>>,
    ids: Vec<Value>,
    is_over: bool,
    is_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Events,
    Chunks,
}

impl Progress {
    pub(crate) fn job(job: Value) -> Result<Self, Error> {
        Self::new("/execute", job, Form::Events)
    }

    pub(crate) fn completion(path: &'static str, body: Value) -> Result<Self, Error> {
        if body.get("n").is_some_and(|n| *n != 1 && !n.is_null()) {
            let reason = "asks for n outputs; only a single one can go on at another replica";
            return Err(Error::Body(reason));
        }
        let mut progress = Self::new(path, body, Form::Chunks)?;
        progress.body.insert("return_token_ids".into(), true.into());
        Ok(progress)
    }

    fn new(path: &'static str, body: Value, form: Form) -> Result<Self, Error> {
        let Value::Object(mut body) = body else {
            return Err(Error::Body("is no object"));
        };
        body.insert("stream".into(), true.into());
        Ok(Self {
            path,
            body,
            form,
            origin: None,
            ids: Vec::new(),
            is_over: false,
            is_complete: false,
        })
    }

    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// The stream has had its last event.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The output is here, and at most a chunk with the usage may be missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What is sent to begin with it, or to go on.
    pub(crate) fn body(&self) -> Value {
        let mut body = self.body.clone();
        if let Some(origin) = &self.origin {
            body.extend(origin.clone());
            body["resume"]["ids"] = Value::Array(self.ids.clone());
        }
        Value::Object(body)
    }

    /// Takes the data of an event; the event, if it is the caller's business.
    pub(crate) fn take(&mut self, data: &[u8]) -> Result<Option<Value>, Failure> {
        if self.form == Form::Chunks && data == b"[DONE]" {
            // Some routers end a stream so whose service is gone.
            self.is_over = self.is_complete;
            return Ok(None);
        }
        let event: Value = serde_json::from_slice(data).map_err(|_| {
            Failure::Final(Error::Service {
                code: "INVALID_STREAM".into(),
                message: "an event is no JSON; is it worker-orcd?".into(),
            })
        })?;
        match self.form {
            Form::Events => self.event(event),
            Form::Chunks => self.chunk(event),
        }
    }

    fn event(&mut self, event: Value) -> Result<Option<Value>, Failure> {
        match event["type"].as_str() {
            Some("resumed") => return Ok(None),
            Some("error") => return Err(Failure::of_service(&event, None, false)),
            Some("started") => {
                let resume = json!({
                    "fingerprint": event["fingerprint"],
                    "request_digest": event["request_digest"],
                    "template_time": event["template_time"],
                });
                self.began(&event, &["job_id", "seed"], resume);
            }
            Some("token") => self.ids.push(event["id"].clone()),
            Some("end") => self.is_over = true,
            _ => {}
        }
        Ok(Some(event))
    }

    fn chunk(&mut self, chunk: Value) -> Result<Option<Value>, Failure> {
        if let Some(error) = chunk.get("error") {
            return Err(Failure::of_service(error, None, true));
        }
        if let Some(resume) = chunk.get("resume") {
            self.began(&chunk, &["seed"], resume.clone());
        }
        let ids = chunk["choices"][0]["token_ids"].as_array();
        self.ids.extend(ids.into_iter().flatten().cloned());
        let reason = chunk["choices"][0]["finish_reason"].as_str();
        self.is_complete |= reason.is_some();
        Ok(Some(chunk))
    }

    fn began(&mut self, event: &Value, same: &[&str], resume: Value) {
        let mut origin = Map::new();
        for name in same {
            origin.insert((*name).into(), event[*name].clone());
        }
        origin.insert("resume".into(), resume);
        self.origin = Some(origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_is_sent_back_with_the_ids_that_came() {
        let job = json!({"prompt": "p", "resume": null});
        let mut progress = Progress::job(job).unwrap();
        assert_eq!(
            progress.body(),
            json!({"prompt": "p", "resume": null, "stream": true})
        );
        let events = [
            r#"{"type":"started","job_id":"j","model":"m","seed":7,"fingerprint":"f","request_digest":"d","template_time":"t"}"#,
            r#"{"type":"token","t":"x","i":0,"id":5}"#,
        ];
        for event in events {
            assert!(progress.take(event.as_bytes()).unwrap().is_some());
        }
        let resume =
            json!({"fingerprint": "f", "request_digest": "d", "template_time": "t", "ids": [5]});
        let expected =
            json!({"prompt": "p", "resume": resume, "stream": true, "job_id": "j", "seed": 7});
        assert_eq!(progress.body(), expected);
        let resumed = br#"{"type":"resumed","job_id":"j","tokens":1}"#;
        assert_eq!(progress.take(resumed).unwrap(), None);
        assert!(!progress.is_over());
        assert!(progress.take(br#"{"type":"end"}"#).unwrap().is_some());
        assert!(progress.is_over());
    }

    #[test]
    fn chunks_are_told_apart_by_their_ids() {
        let mut progress = Progress::completion("/v1/completions", json!({"prompt": "p"})).unwrap();
        let first = r#"{"seed":7,"resume":{"id":"c","fingerprint":"f"},"choices":[{"text":""}]}"#;
        progress.take(first.as_bytes()).unwrap();
        let chunk = r#"{"choices":[{"text":"x","token_ids":[5,6]}]}"#;
        progress.take(chunk.as_bytes()).unwrap();
        let resume = json!({"id": "c", "fingerprint": "f", "ids": [5, 6]});
        assert_eq!(progress.body()["resume"], resume);
        assert_eq!(progress.body()["seed"], 7);
        assert_eq!(progress.take(b"[DONE]").unwrap(), None);
        assert!(!progress.is_over(), "a router's, whose service is gone");
        let last = br#"{"choices":[{"text":"y","token_ids":[7],"finish_reason":"stop"}]}"#;
        progress.take(last).unwrap();
        assert_eq!(progress.take(b"[DONE]").unwrap(), None);
        assert!(progress.is_over());
        let errors = [
            r#"{"error":{"code":"draining","message":"m"}}"#,
            r#"{"error":{"type":"stream_error","message":"m"}}"#,
        ];
        for error in errors {
            let failure = progress.take(error.as_bytes());
            assert!(matches!(failure, Err(Failure::Elsewhere { .. })), "{error}");
        }
        let wrong = br#"{"error":{"type":"invalid_request_error","message":"m","code":null}}"#;
        assert!(matches!(progress.take(wrong), Err(Failure::Final(_))));
        assert!(Progress::completion("/", json!({"n": 2})).is_err());
    }
}
