"""The client against services that are played: cut, silent, full, and wrong ones. Real ones are in tests/e2e/clients.rs."""

import http.server
import json
import threading
import unittest

import orcd_client
from orcd_client import JobFailed, Replicas

TOKENS = ["a", "", "b", "é", "c"]
STARTED = {"type": "started", "job_id": "j", "seed": 7, "fingerprint": "f", "request_digest": "d", "template_time": "t"}


class Played:
    """A service that plays one answer after the other, the last one for ever; it keeps the bodies that came."""

    def __init__(self, *answers):
        self.bodies = []
        played = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = answers[min(len(played.bodies), len(answers) - 1)]
                played.bodies.append(body)
                answer(self, body)

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()


def stream(handler, items, numbered=True):
    handler.send_response(200)
    handler.end_headers()
    for at, item in enumerate(items):
        data = item if isinstance(item, str) else json.dumps(item)
        handler.wfile.write((f": working\n\nid: {at}\ndata: {data}\n\n" if numbered else f"data: {data}\n\n").encode())


def events(cut=None):
    """Plays the job; `cut` events of it."""
    def answer(handler, body):
        known = len(body["resume"]["ids"]) if "resume" in body else None
        tokens = [{"type": "token", "t": t, "i": i, "id": 100 + i} for i, t in enumerate(TOKENS)]
        end = {"type": "end", "tokens_out": len(TOKENS)}
        if known is None:
            items = [STARTED, *tokens, end]
        else:
            items = [{"type": "resumed", "job_id": "j", "tokens": known}, *tokens[known:], end]
        stream(handler, items[:cut])
    return answer


def refusal(status, code):
    def answer(handler, body):
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(json.dumps({"error": {"code": code, "message": "m"}}).encode())
    return answer


def error(code):
    return lambda handler, body: stream(handler, [STARTED, {"type": "error", "code": code, "message": "m"}])


class Test(unittest.TestCase):
    def setUp(self):
        orcd_client.FIRST_PAUSE_S = 0.001

    def text(self, *urls, **options):
        items = list(Replicas(urls, **options).execute({"prompt": "p", "job_id": "j"}))
        self.assertEqual([item["type"] for item in items], ["started"] + ["token"] * len(TOKENS) + ["end"])
        return "".join(item.get("t", "") for item in items)

    def test_a_cut_stream_goes_on_wherever_it_was_cut(self):
        for cut in range(1, len(TOKENS) + 2):
            with Played(events(cut)) as first, Played(events()) as second:
                self.assertEqual(self.text(first.url, second.url), "abéc", cut)
                resume = {"ids": [100 + i for i in range(cut - 1)],
                          "fingerprint": "f", "request_digest": "d", "template_time": "t"}
                same = {"prompt": "p", "stream": True, "job_id": "j", "seed": 7}
                self.assertEqual(second.bodies, [{**same, "resume": resume}])

    def test_a_stream_may_be_cut_at_every_replica(self):
        # Each attempt brings a token more.
        with Played(events(2)) as first, Played(events(2)) as second:
            self.assertEqual(self.text(first.url, second.url, rounds=1), "abéc")
            self.assertEqual([len(played.bodies) for played in (first, second)], [3, 3])

    def test_what_another_replica_may_take_is_sent_there(self):
        for answer in [
            refusal(503, "DRAINING"),
            refusal(409, "FINGERPRINT_MISMATCH"),
            refusal(409, "JOB_EXISTS"),
            refusal(500, "REPLAY_DIVERGED"),
            lambda handler, body: handler.send_error(502),
            # A router's, as vllm-router and smg say that a service is gone.
            lambda handler, body: handler.send_error(500),
            refusal(500, "call_upstream_connection_failed"),
            refusal(503, "no_available_workers"),
            refusal(429, "rate_limit_exceeded"),
            lambda handler, body: handler.connection.close(),
        ]:
            with Played(answer) as first, Played(events()) as second:
                self.assertEqual(self.text(first.url, second.url), "abéc")
                self.assertNotIn("resume", second.bodies[0])

    def test_an_error_in_the_stream_is_no_event_if_it_goes_on(self):
        with Played(error("CANCELLED")) as first, Played(events()) as second:
            self.assertEqual(self.text(first.url, second.url), "abéc")
            self.assertEqual(second.bodies[0]["resume"]["ids"], [])

    def test_a_replica_may_come_back(self):
        with Played(refusal(503, "WORKER_UNAVAILABLE"), refusal(503, "QUEUE_FULL"), events()) as only:
            self.assertEqual(self.text(only.url), "abéc")

    def test_it_gives_up(self):
        for answer, code, attempts in [
            (refusal(400, "INVALID_REQUEST"), "INVALID_REQUEST", 1),
            (refusal(500, "INTERNAL"), "INTERNAL", 1),
            (refusal(404, "unknown_url"), "UNKNOWN_URL", 1),
            (error("WORKER_CRASHED"), "WORKER_CRASHED", 1),
            (refusal(503, "QUEUE_FULL"), "QUEUE_FULL", 3),
        ]:
            with Played(answer) as only, self.assertRaises(JobFailed) as failed:
                list(Replicas([only.url], rounds=3).execute({"prompt": "p"}))
            self.assertEqual((failed.exception.code, len(only.bodies)), (code, attempts))

    def test_chunks_go_on_and_are_over_with_their_reason(self):
        origin = {"seed": 7, "resume": {"id": "c", "fingerprint": "f"}}
        first_chunk = {**origin, "choices": [{"text": "", "finish_reason": None}]}
        chunk = {"choices": [{"text": "x", "token_ids": [5, 6], "finish_reason": None}]}
        last = {"choices": [{"text": "y", "token_ids": [7], "finish_reason": "stop"}]}
        cut = lambda handler, body: stream(handler, [first_chunk, chunk], numbered=False)
        rest = lambda handler, body: stream(handler, [last], numbered=False)
        with Played(cut) as first, Played(rest) as second:
            found = list(Replicas([first.url, second.url]).completion({"prompt": "p"}))
            self.assertEqual(found, [first_chunk, chunk, last])
            self.assertTrue(first.bodies[0]["return_token_ids"])
            self.assertEqual(second.bodies[0]["resume"], {"id": "c", "fingerprint": "f", "ids": [5, 6]})
            self.assertEqual(second.bodies[0]["seed"], 7)
        whole = lambda handler, body: stream(handler, [first_chunk, chunk, last, "[DONE]"], numbered=False)
        with Played(whole) as only:
            self.assertEqual(list(Replicas([only.url]).chat({"messages": []})), [first_chunk, chunk, last])

    def test_chunks_go_on_where_a_router_ends_a_stream_in_good_form(self):
        first_chunk = {"seed": 7, "resume": {"id": "c"}, "choices": [{"text": "x", "token_ids": [5], "finish_reason": None}]}
        last = {"choices": [{"text": "y", "token_ids": [7], "finish_reason": "stop"}]}
        rest = lambda handler, body: stream(handler, [last], numbered=False)
        for ending in [[{"error": {"message": "m", "type": "stream_error"}}, "[DONE]"], ["[DONE]"], []]:
            cut = lambda handler, body: stream(handler, [first_chunk, *ending], numbered=False)
            with Played(cut, rest) as router:
                found = list(Replicas([router.url]).completion({"prompt": "p"}))
                self.assertEqual(found, [first_chunk, last])
                self.assertEqual(router.bodies[1]["resume"], {"id": "c", "ids": [5]})

    def test_a_wrong_request_is_one_in_a_stream_too(self):
        wrong = {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": None}}
        with Played(lambda handler, body: stream(handler, [wrong], numbered=False)) as only:
            with self.assertRaises(JobFailed) as failed:
                list(Replicas([only.url]).completion({"prompt": "p"}))
            self.assertEqual((failed.exception.code, len(only.bodies)), ("INVALID_REQUEST", 1))

    def test_what_can_not_be_asked_is_refused(self):
        for urls in [[], ["127.0.0.1:8080"], ["ftp://a"]]:
            with self.assertRaises(ValueError):
                Replicas(urls)
        with self.assertRaises(ValueError):
            list(Replicas(["http://a"]).chat({"n": 2}))


if __name__ == "__main__":
    unittest.main()
